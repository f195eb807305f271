-- The Iceberg catalog's own tables, as JdbcCatalog (schema V1) and pyiceberg create them.
CREATE TABLE iceberg_tables (
    catalog_name varchar(255) NOT NULL,
    table_namespace varchar(255) NOT NULL,
    table_name varchar(255) NOT NULL,
    metadata_location varchar(1000),
    previous_metadata_location varchar(1000),
    iceberg_type varchar(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name)
);
CREATE TABLE iceberg_namespace_properties (
    catalog_name varchar(255) NOT NULL,
    namespace varchar(255) NOT NULL,
    property_key varchar(255) NOT NULL,
    property_value varchar(1000) NOT NULL,
    PRIMARY KEY (catalog_name, namespace, property_key)
);

CREATE SCHEMA k2;

-- What people want of each stream, and who may write as it.
CREATE TABLE k2.streams (
    stream text PRIMARY KEY,
    desired text NOT NULL DEFAULT 'running' CHECK (desired IN ('running', 'stopped')),
    generation bigint NOT NULL DEFAULT 1,
    fence bigint NOT NULL DEFAULT 0,
    forgiven_fence bigint NOT NULL DEFAULT 0
);

-- One row per start, written with the raised fence in one transaction before anything is launched.
CREATE TABLE k2.launches (
    stream text NOT NULL REFERENCES k2.streams,
    fence bigint NOT NULL,
    generation bigint NOT NULL,
    reason text NOT NULL,
    last_commit_at timestamptz,
    detected_at timestamptz,
    intent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    launched_at timestamptz,
    how text,
    first_commit_at timestamptz,
    first_commit_batch bigint,
    ended_at timestamptz,
    exit_code integer,
    end_reason text,
    PRIMARY KEY (stream, fence)
);

-- The last verdict on each stream and the readings that led to it.
CREATE TABLE k2.verdicts (
    stream text PRIMARY KEY REFERENCES k2.streams,
    verdict text NOT NULL,
    because text NOT NULL,
    since timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    observation jsonb NOT NULL
);

-- At most one open incident per key.
CREATE TABLE k2.incidents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('page', 'ticket', 'digest')),
    title text NOT NULL,
    detail text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    resolution text,
    message jsonb,
    told_opened_at timestamptz,
    told_resolved_at timestamptz
);
CREATE UNIQUE INDEX one_open_incident_per_key ON k2.incidents (key) WHERE resolved_at IS NULL;

CREATE TABLE k2.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    reason text NOT NULL,
    before jsonb,
    after jsonb
);

-- When each watcher last looked.
CREATE TABLE k2.watchers (
    watcher text PRIMARY KEY,
    seen_at timestamptz NOT NULL,
    detail text NOT NULL DEFAULT ''
);

-- The fence: a session that carries k2.stream and k2.fence may change the catalog only while its fence is the
-- current one. FOR SHARE makes a raise of the fence wait for a commit in flight, and a commit for a raise.
-- Writers must carry both; other roles (maintenance, readers of metadata) carry none and pass.
CREATE FUNCTION k2.check_fence() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    holder text := coalesce(current_setting('k2.stream', true), '');
    held text := coalesce(current_setting('k2.fence', true), '');
    current_fence bigint;
BEGIN
    IF holder = '' THEN
        IF session_user = 'k2_writer' THEN
            RAISE EXCEPTION 'k2 fence: a writer must name its stream and fence' USING ERRCODE = 'K2F02';
        END IF;
    ELSE
        SELECT fence INTO current_fence FROM k2.streams WHERE stream = holder FOR SHARE;
        IF current_fence IS NULL THEN
            RAISE EXCEPTION 'k2 fence: stream % is not registered', holder USING ERRCODE = 'K2F02';
        ELSIF held <> current_fence::text THEN
            RAISE EXCEPTION 'k2 fence: stream % holds epoch %, current is %', holder, held, current_fence USING ERRCODE = 'K2F01';
        END IF;
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER k2_fence BEFORE INSERT OR UPDATE OR DELETE ON iceberg_tables FOR EACH ROW EXECUTE FUNCTION k2.check_fence();

GRANT USAGE ON SCHEMA public TO k2_writer, k2_reader, k2_control;
GRANT USAGE ON SCHEMA k2 TO k2_reader, k2_control;
GRANT SELECT, INSERT, UPDATE ON iceberg_tables, iceberg_namespace_properties TO k2_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON iceberg_tables, iceberg_namespace_properties TO k2_control;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA k2 TO k2_control;
REVOKE UPDATE, DELETE ON k2.audit FROM k2_control;
GRANT SELECT ON iceberg_tables, iceberg_namespace_properties TO k2_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA k2 TO k2_reader;
