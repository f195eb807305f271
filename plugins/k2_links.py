"""Registers the platform's links in Airflow's navigation."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from k2.airflow.links import navigation


class K2Links(AirflowPlugin):
    name = "k2_links"
    external_views = navigation()
