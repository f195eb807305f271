"""The Streams page inside the Airflow UI. It reads, and changes nothing."""
