-- The exactly-once certificates of the streams, one for each start. Rows are added and never changed: each carries the
-- digest of its content and of the one before it, so that a row that was changed or removed shows.
CREATE TABLE k2.certificates (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream text NOT NULL,
    fence bigint NOT NULL,
    at timestamptz NOT NULL,
    query text,
    first bigint,
    last bigint,
    batches bigint NOT NULL,
    rows bigint NOT NULL,
    fences bigint[] NOT NULL,
    color text NOT NULL CHECK (color IN ('green', 'red', 'unknown')),
    checks jsonb NOT NULL,
    previous text,
    digest text NOT NULL
);
CREATE INDEX certificates_of_a_stream ON k2.certificates (stream, id);
GRANT SELECT, INSERT ON k2.certificates TO k2_control;
GRANT SELECT ON k2.certificates TO k2_reader;

-- What a person let a start skip because Kafka no longer had it: {"partition": [first offset, one after the last]}.
ALTER TABLE k2.launches ADD COLUMN accepted_loss jsonb;
