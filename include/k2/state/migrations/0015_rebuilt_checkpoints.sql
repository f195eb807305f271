-- The generation that asks for a checkpoint made again from the stream's tables, and what whoever approved that was told: {"sentence", "lost",
-- "query"}, the first two as in adopted_loss, the last the id that a new query gets. A start that would lose more is held.
ALTER TABLE k2.streams ADD COLUMN rebuild_generation bigint, ADD COLUMN rebuild_told jsonb;
-- Whether the start made the checkpoint again: its query goes on where the table ended, but for `accepted_loss`.
ALTER TABLE k2.launches ADD COLUMN rebuilt boolean NOT NULL DEFAULT false;
