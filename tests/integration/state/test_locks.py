"""The lock of a checkpoint, in a real PostgreSQL."""

from __future__ import annotations

import pytest

from k2.registry.runtime import Runtime
from k2.state import locks
from k2.state.database import connect
from k2.state.locks import Locked, lock_checkpoint


def test_only_one_has_it(own_database: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is told after a while; another checkpoint is free; it goes with its transaction."""
    monkeypatch.setattr(locks, "WAIT_MS", 200)
    with connect(own_database, "control") as connection:
        lock_checkpoint(connection, "bronze-binance")
        with pytest.raises(Locked, match="checkpoint bronze-binance"), connect(own_database, "control") as other:
            lock_checkpoint(other, "bronze-binance")
        with connect(own_database, "control") as other:
            lock_checkpoint(other, "bronze-kraken")
    with connect(own_database, "control") as connection:
        lock_checkpoint(connection, "bronze-binance")
