"""Iceberg tables kept small: what each holds, what could go and why. Reads and reports; nothing here changes a table."""
