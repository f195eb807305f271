"""From observations to verdicts to actions. Pure: values in, values out; no clock, no client, no Airflow."""
