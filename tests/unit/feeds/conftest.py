"""The recordings beside the tree; tests that need them are skipped where they are absent."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recordings_folder() -> Path:
    folder = Path(__file__).resolve().parents[4] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}")
    return folder
