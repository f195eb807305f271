-- The tombstones of checkpoints that people have retired, by folder: nothing starts in its place. Each is written before the folder is moved and
-- goes when that is back; `entry` is its place in the quarantine, NULL while it is being retired.
CREATE TABLE k2.retired (
    folder text PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    reason text NOT NULL,
    entry text
);
GRANT SELECT, INSERT, UPDATE, DELETE ON k2.retired TO k2_control;
GRANT SELECT ON k2.retired TO k2_reader;
