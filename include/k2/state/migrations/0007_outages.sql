-- When the watchdog decided on a start: between the detection of the trouble that it answers and the intent.
ALTER TABLE k2.launches ADD COLUMN decided_at timestamptz;

-- One row per stretch of time in which a stream did not do its work, whatever the number of starts that it took. Kept for ever.
CREATE TABLE k2.outages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream text NOT NULL,
    verdict text NOT NULL,
    because text NOT NULL,
    fence bigint NOT NULL,
    good_at timestamptz NOT NULL,
    detected_at timestamptz NOT NULL,
    recovered_at timestamptz,
    recovered_by text CHECK (recovered_by IN ('commit', 'idle')),
    recovered_fence bigint,
    caught_up_at timestamptz,
    over_at timestamptz,
    outcome text CHECK (outcome IN ('caught_up', 'interrupted', 'stopped'))
);
CREATE UNIQUE INDEX one_outage_is_followed ON k2.outages (stream) WHERE over_at IS NULL;
CREATE INDEX outages_by_time ON k2.outages (detected_at);
GRANT SELECT, INSERT, UPDATE ON k2.outages TO k2_control;
GRANT SELECT ON k2.outages TO k2_reader;
