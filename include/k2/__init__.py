"""K2: an Airflow suite that supervises Spark streams and maintains their lakehouse."""
