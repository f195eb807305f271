-- How large each checkpoint was at each nightly look: what its growth is told from.
CREATE TABLE k2.checkpoint_sizes (
    folder text NOT NULL,
    at timestamptz NOT NULL,
    files bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (folder, at)
);
GRANT SELECT, INSERT, DELETE ON k2.checkpoint_sizes TO k2_control;
GRANT SELECT ON k2.checkpoint_sizes TO k2_reader;
