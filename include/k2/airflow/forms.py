"""The fields of the DAGs' trigger forms."""

from __future__ import annotations

import yaml
from airflow.sdk import Param

from k2.registry.files import registry_file


def declared_streams() -> dict[str, str]:
    """The declared streams and their types. Read only: checking the registry would cost a DAG file half its time limit, and every task checks it."""
    registry = yaml.load(registry_file().read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader, in C where there is one
    return {name: stream["type"] for name, stream in registry["streams"].items()}


def stream_choice(default: str | None = None) -> Param:
    """The first stream is chosen unless a default says otherwise."""
    streams = declared_streams()
    layers = sorted(set(streams.values()))
    return Param(
        default or next(iter(streams)),
        title="Stream",
        description="One stream, or every stream of a layer, or all of them.",
        type="string",
        enum=[*streams, *layers, "all"],
        values_display={**{layer: f"every {layer} stream" for layer in layers}, "all": "every stream"},
    )


ACTIONS = {
    "start": "start: bring it up if it is down",
    "stop": "stop: finish the batch in flight, then end",
    "restart": "restart: stop, then start, on the same checkpoint",
    "upgrade": "upgrade: try the code and configuration of now on a copy of its checkpoint, then restart",
    "adopt": "adopt: start one that is held as REWIND, although its place is not the one that it had (needs an approval)",
    "rebuild": "rebuild: make a checkpoint that is gone, damaged or held as REWIND or INCOMPATIBLE again from its tables, and start it (needs an approval)",
    "retire": "retire: put the checkpoint of a stopped stream, or one that no stream claims, into the quarantine (needs an approval)",
    "restore": "restore: put a checkpoint back that lies in the quarantine, or a backup (needs an approval)",
    "skip-poison": "skip-poison: send the records that a POISONED stream fails at to the dead-letter table, and start it (needs an approval)",
}


def action_choice() -> Param:
    return Param(
        "restart",
        title="Action",
        description="start, stop, restart and upgrade lose and double nothing. Stopping a layer or all streams, adopt, rebuild, retire, restore and "
        "skip-poison wait for an approval. adopt: by the reason why the stream is held, rows can be in its tables twice, or missing.",
        type="string",
        enum=list(ACTIONS),
        values_display=ACTIONS,
    )


def checkpoint_choice() -> Param:
    return Param(
        None,
        title="Checkpoint",
        description="Only for retire and restore, and empty for the stream's own. retire: a folder that no stream claims. restore: such a folder, or the "
        "name of an entry of the quarantine or of a backup; without one the newest checkpoint in the quarantine goes back.",
        type=["null", "string"],
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


def prune_dry_run() -> Param:
    return Param(
        True,
        title="Dry run",
        description="Plan, and change nothing. Switched off, leftovers of crashed writes are moved into the quarantine, as in every nightly run.",
        type="boolean",
    )


def window_action() -> Param:
    shown = {"open": "open: mute what happens from now or later, for some hours", "close": "close: end it now, or cancel one to come"}
    return Param(
        "open", title="Action", description="Open a window, or close those of exactly this choice.", type="string", enum=list(shown), values_display=shown
    )


def moment(title: str, description: str) -> Param:
    return Param(None, title=title, description=description, type=["null", "string"], format="date-time")
