"""Where what is declared is kept. Imports no model, so that a DAG file can ask without losing time."""

from __future__ import annotations

import os
from pathlib import Path

CONFIG_DIR = Path(__file__).resolve().parents[2] / "config"
REGISTRY = CONFIG_DIR / "platform.yaml"


def registry_file() -> Path:
    """The registry: `K2_PLATFORM`, by default include/config/platform.yaml. For the processes of a platform the copy that `./k2 up` has applied."""
    return Path(os.environ.get("K2_PLATFORM", REGISTRY))
