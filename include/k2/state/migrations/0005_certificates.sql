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

-- Why a stream is not started though it is wanted, until a person adopts it; and the generation that did.
ALTER TABLE k2.streams ADD COLUMN held_for text, ADD COLUMN adopted_generation bigint;
-- Whether a person had adopted what the start goes on from, and what it may skip because Kafka no longer has it:
-- {"partition": [first offset, one after the last]}.
ALTER TABLE k2.launches ADD COLUMN adopted boolean NOT NULL DEFAULT false, ADD COLUMN accepted_loss jsonb;
