"""The fields of the DAGs' trigger forms."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from airflow.sdk import Param

REGISTRY = Path(__file__).resolve().parents[2] / "config" / "platform.yaml"


def declared_streams() -> dict[str, str]:
    """The declared streams and their types. Read only: checking the registry would cost a DAG file half its time limit, and every task checks it."""
    path = Path(os.environ.get("K2_PLATFORM", REGISTRY))
    registry = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader, in C where there is one
    return {name: stream["type"] for name, stream in registry["streams"].items()}


def stream_choice() -> Param:
    streams = declared_streams()
    layers = sorted(set(streams.values()))
    return Param(
        next(iter(streams)),
        title="Stream",
        description="One stream, or every stream of a layer, or all of them.",
        type="string",
        enum=[*streams, *layers, "all"],
        values_display={**{layer: f"every {layer} stream" for layer in layers}, "all": "every stream"},
    )


def action_choice() -> Param:
    return Param(
        "restart",
        title="Action",
        description="start: bring it up if it is down. stop: finish the batch in flight, then end. restart: stop, then start. Nothing is lost by any of "
        "them. adopt: start a stream that is held as REWIND, from its checkpoint as that is now; what it commits again is in its tables twice. "
        "skip-poison: send the records that a POISONED stream fails at to the dead-letter table, and start it.",
        type="string",
        enum=["start", "stop", "restart", "adopt", "skip-poison"],
    )


def reason() -> Param:
    return Param(
        title="Reason",
        description="Why, in a sentence (at least 10 characters). It goes into the audit log, with your name.",
        type="string",
        minLength=10,
    )


def limit(default: float, title: str, description: str, *, minimum: float) -> Param:
    kind = "integer" if isinstance(default, int) else "number"
    return Param(default, title=title, description=description, type=kind, minimum=minimum)


def dry_run() -> Param:
    return Param(
        True,
        title="Dry run",
        description="This DAG reads and reports, and changes nothing yet: it cannot be switched off.",
        type="boolean",
        const=True,
    )
