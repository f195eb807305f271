"""What all tests share: recordings where they are at hand, an Airflow of their own, with SQLite and no examples, and how hypothesis searches."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

for name in [n for n in os.environ if n.startswith("AIRFLOW")]:
    del os.environ[name]
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="k2-test-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] = "False"
# The daily run tries the same examples each time, so that it tells of a change and of nothing else; --full searches anew.
settings.register_profile("daily", derandomize=True, deadline=None)
settings.register_profile("full", max_examples=1000, deadline=None)
settings.load_profile("daily")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def recordings_folder() -> Path:
    """Real traffic of both exchanges, recorded; it is not part of the project."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}")
    return folder
