-- A spare rehearses in a catalog of its own, with a role that may see no other: no fence guards it, and none needs to.
CREATE SCHEMA k2_spare;
CREATE TABLE k2_spare.iceberg_tables (LIKE public.iceberg_tables INCLUDING ALL);
CREATE TABLE k2_spare.iceberg_namespace_properties (LIKE public.iceberg_namespace_properties INCLUDING ALL);
GRANT USAGE ON SCHEMA k2_spare TO k2_spare;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA k2_spare TO k2_spare;
-- After a rehearsal its connections are of no use.
ALTER ROLE k2_spare SET idle_session_timeout = '60s';
