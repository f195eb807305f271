"""Where what is declared is kept. Imports no model, so that a DAG file can ask without losing time."""

from __future__ import annotations

from pathlib import Path

CONFIG_DIR = Path(__file__).resolve().parents[2] / "config"
REGISTRY = CONFIG_DIR / "platform.yaml"
"""The registry, unless K2_PLATFORM names another file."""
