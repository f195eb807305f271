-- What each stream's checkpoint was last seen as: a start from another identity, or from before, is refused.
ALTER TABLE k2.streams ADD COLUMN known_query_id text, ADD COLUMN known_batch bigint;
