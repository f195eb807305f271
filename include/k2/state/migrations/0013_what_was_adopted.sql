-- What whoever approved an adoption was told that the stream would lose: {"sentence", "lost": {"partition": [first offset, one after the
-- last]}}, `lost` empty when it begins anew. NULL: nothing. A start that finds more is held again.
ALTER TABLE k2.streams ADD COLUMN adopted_loss jsonb;
