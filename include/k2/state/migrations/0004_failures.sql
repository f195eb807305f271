-- How each launch failed, as its driver told it: what decides whether the stream is started again.
ALTER TABLE k2.launches
    ADD COLUMN failure_class text,
    ADD COLUMN fingerprint text,
    ADD COLUMN failed_batch bigint,
    ADD COLUMN failed_records jsonb,
    ADD COLUMN failed_narrowed boolean,
    ADD COLUMN failed_dependency text;

-- What a stream that is held waits for.
ALTER TABLE k2.verdicts ADD COLUMN dependency text;

-- Records that a person decided to send to the dead-letter table instead of decoding them. Rows are added and never changed.
CREATE TABLE k2.skips (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream text NOT NULL REFERENCES k2.streams,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    reason text NOT NULL,
    fingerprint text NOT NULL,
    batch bigint NOT NULL,
    records jsonb NOT NULL
);
GRANT USAGE ON SCHEMA k2 TO k2_writer;
GRANT SELECT ON k2.skips TO k2_writer, k2_reader, k2_control;
GRANT INSERT ON k2.skips TO k2_control;
