"""What a rehearsal leaves behind when it cannot be held."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import rehearsal
from k2.registry.platform import load_platform


def test_a_rehearsal_without_a_catalog_leaves_the_spares_own_session_active(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PostgreSQL is away: the driver that the spare becomes must not look its catalog up in the rehearsal's session."""
    active = []

    def away(*_: object) -> None:
        raise ConnectionError("PostgreSQL is away")

    def nothing(*_: object) -> None:
        return None

    session = SimpleNamespace(conf=SimpleNamespace(set=nothing))
    spark = SimpleNamespace(newSession=lambda: session)
    runtime = SimpleNamespace(platform=load_platform("demo"), model_copy=lambda update: SimpleNamespace(**update))
    monkeypatch.setattr(rehearsal, "_activate", active.append)
    monkeypatch.setattr(rehearsal, "open_catalog", away)
    with pytest.raises(ConnectionError):
        rehearsal.rehearse(spark, runtime, "x", tmp_path, lambda: False)  # type: ignore[arg-type]
    assert active == [session, spark]
