-- The last committed batch of the checkpoint when the start was recorded, so that no clock is needed to tell its first commit
-- from its predecessor's. None where there was no commit yet.
ALTER TABLE k2.launches ADD COLUMN begins_after bigint;
