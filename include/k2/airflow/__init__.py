"""Operators, triggers, callbacks and set-up: with k2.web, the only package that imports Airflow."""
