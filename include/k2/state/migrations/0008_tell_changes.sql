-- Who watches streams is told the name of each one of which something changed, instead of reading all of them all the time.
-- A notice is sent when its transaction commits and costs nothing where nobody listens; one transaction tells a name once.
CREATE FUNCTION k2.tell_stream() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('k2_streams', coalesce(NEW.stream, OLD.stream));
    RETURN NULL;
END $$;
CREATE TRIGGER k2_tell_new AFTER INSERT OR DELETE ON k2.streams FOR EACH ROW EXECUTE FUNCTION k2.tell_stream();
-- How far a checkpoint is known rises with each commit, and is of no use to whoever has written it.
CREATE TRIGGER k2_tell AFTER UPDATE ON k2.streams FOR EACH ROW
    WHEN (to_jsonb(OLD) - 'known_batch' IS DISTINCT FROM to_jsonb(NEW) - 'known_batch') EXECUTE FUNCTION k2.tell_stream();
CREATE TRIGGER k2_tell AFTER INSERT OR UPDATE OR DELETE ON k2.launches FOR EACH ROW EXECUTE FUNCTION k2.tell_stream();
-- A verdict is written at every look; only a change of it is news.
CREATE TRIGGER k2_tell_new AFTER INSERT OR DELETE ON k2.verdicts FOR EACH ROW EXECUTE FUNCTION k2.tell_stream();
CREATE TRIGGER k2_tell AFTER UPDATE ON k2.verdicts FOR EACH ROW
    WHEN (OLD.verdict IS DISTINCT FROM NEW.verdict OR OLD.since IS DISTINCT FROM NEW.since) EXECUTE FUNCTION k2.tell_stream();
-- That a dependency answers again is news for every stream that was held for it.
CREATE FUNCTION k2.tell_all() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('k2_streams', '*');
    RETURN NULL;
END $$;
CREATE TRIGGER k2_tell AFTER UPDATE OF resolved_at ON k2.incidents FOR EACH ROW
    WHEN (NEW.key LIKE 'dependency:%' AND OLD.resolved_at IS DISTINCT FROM NEW.resolved_at) EXECUTE FUNCTION k2.tell_all();
