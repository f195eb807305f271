ALTER TABLE k2.launches DROP COLUMN last_commit_at;
