"""The suite's own SQL schema, next to the Iceberg catalog that it protects: all that is known of the streams."""
