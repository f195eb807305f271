"""The asset that wakes the watchdog. An event on it says that a stream needs a look now."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher

STREAMS = Asset.ref(name="k2_streams")
"""For tasks that wake the watchdog. A reference, because naming the asset itself would import its watcher's trigger."""


def report_asset(name: str) -> Asset:
    """The asset whose events keep the summaries of one report."""
    return Asset(name=f"k2_{name}_report", uri=f"x-k2://reports/{name}", group="k2")


def watched_streams() -> Asset:
    """The asset with its watcher, the poll in the triggerer. One DAG defines it: equality of assets includes their watchers."""
    from k2.airflow.triggers import StreamsPollTrigger

    return Asset(name="k2_streams", uri="x-k2://streams", group="k2", watchers=[AssetWatcher(name="k2_streams_poll", trigger=StreamsPollTrigger())])
