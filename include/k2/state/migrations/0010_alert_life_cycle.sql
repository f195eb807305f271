-- An incident that comes back soon is the same one: how often it was opened, how often people were told so, and when last.
ALTER TABLE k2.incidents
    ADD COLUMN times integer NOT NULL DEFAULT 1,
    ADD COLUMN told_times integer NOT NULL DEFAULT 0,
    ADD COLUMN told_at timestamptz;
UPDATE k2.incidents SET told_times = 1, told_at = coalesce(told_resolved_at, told_opened_at) WHERE told_opened_at IS NOT NULL;
