"""The platform's DAGs, parsed once."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

TREE = Path(__file__).resolve().parents[2]
DAGS = TREE / "dags"


@pytest.fixture(scope="session")
def dags() -> dict[str, DAG]:
    bag = DagBag(dag_folder=str(DAGS))
    assert bag.import_errors == {}
    return dict(bag.dags)
