-- One request of a person may leave several rows: what was recorded, what became of it, that it was refused.
ALTER TABLE k2.audit
    ADD COLUMN request text,
    ADD COLUMN outcome text NOT NULL DEFAULT 'recorded',
    ADD COLUMN approved_by text;
CREATE INDEX audit_by_target ON k2.audit (target, id);

-- Of a launch that ended on request: whether every batch that it had planned was committed. NULL where nobody saw it.
ALTER TABLE k2.launches ADD COLUMN drained boolean;

-- Times in which people are not told of incidents at once. A window always ends.
CREATE TABLE k2.windows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL CHECK (ends_at >= starts_at),
    who text NOT NULL,
    reason text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    told_at timestamptz
);
GRANT SELECT, INSERT, UPDATE ON k2.windows TO k2_control;
GRANT SELECT ON k2.windows TO k2_reader;
