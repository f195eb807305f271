"""One watch: what woke it, what it saw, what it did, as values and as tables for the task's log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from k2 import watchdog
from k2.registry.observed import Decision
from k2.registry.runtime import Runtime
from k2.supervision.explain import action


class ActionFailed(RuntimeError):
    """Something that had to be done to a stream could not be done. The next run looks again and does what is then due."""


@dataclass(frozen=True)
class Watch:
    """A stream that was acted on at once is in `looks` again: as it was before, and after."""

    looks: Sequence[watchdog.Look]
    done: Sequence[watchdog.Done]
    certified: Sequence[watchdog.Written] = field(default_factory=list)

    def failures(self) -> list[watchdog.Done]:
        return [done for done in self.done if not done.ok]


def look_and_act(runtime: Runtime) -> Watch:
    """Observe every stream afresh, decide, act. What woke the run is no input: it may be old by now.

    What is urgent comes first, and again while a stream is being drained: a full look waits seconds for a broker that is silent. A run that
    started or stopped something writes no certificates, so that nothing waits for them.
    """
    looks: list[watchdog.Look] = []

    def urgent() -> list[Decision]:
        """Of a stream that is being drained, the log tells once."""
        found = watchdog.urgent(runtime)
        last = {look.decision.stream: look.decision.verdict for look in looks}
        looks.extend(look for look in found if last.get(look.decision.stream) is not look.decision.verdict)
        return [look.decision for look in found]

    done = watchdog.act(runtime, urgent(), urgent)
    full = watchdog.look(runtime)
    looks += full
    done += watchdog.act(runtime, [look.decision for look in full], urgent)
    return Watch(looks, done, [] if any(d.fence is not None for d in done) else watchdog.certify_due(runtime))


def woken_by(context: Any) -> str:
    """A sentence: the clock, or which streams the poll or a person named, and how long ago."""
    events = [event for events in (context.get("triggering_asset_events") or {}).values() for event in events]
    if not events:
        return "Woken by the clock."
    said = []
    for event in events:
        extra = event.extra or {}
        payload = extra.get("payload") or extra
        who = "the poll" if extra.get("from_trigger") else extra.get("who", "somebody")
        age = (datetime.now(UTC) - event.timestamp).total_seconds()
        because = payload.get("because")
        said.append(f"{who}, {age:.1f} s ago, about {', '.join(payload.get('streams') or ['all streams'])}" + (f": {because}" if because else ""))
    return "Woken by " + "; ".join(said)


def summary(watch: Watch) -> dict[str, Any]:
    """A few words per stream for the task's XCom."""
    return {
        "verdicts": {look.decision.stream: str(look.decision.verdict) for look in watch.looks},
        "done": [{"stream": d.stream, "action": str(d.action), "ok": d.ok, "detail": d.detail} for d in watch.done],
    }


def table(watch: Watch) -> str:
    """What was seen and concluded, then what was done, for a fixed-width log."""
    seen = [("stream", "verdict", "action", "driver", "last commit", "behind", "because")]
    for look in watch.looks:
        decision = look.decision
        seen.append((decision.stream, str(decision.verdict), action(decision), _driver(look), _last_commit(look), _behind(look), decision.because))
    done = [("stream", "did", "result", "detail"), *((d.stream, str(d.action), "done" if d.ok else "FAILED", d.detail) for d in watch.done)]
    certified = [
        f"Certificate of {w.stream}: {w.certificate.color}: {w.certificate.sentence()}" if w.certificate else f"No certificate of {w.stream}: {w.error}"
        for w in watch.certified
    ]
    return "\n".join([*_aligned(seen), "", *(_aligned(done) if watch.done else ["Nothing had to be done."]), *certified])


def _driver(look: watchdog.Look) -> str:
    driver = look.observation.driver.value
    if driver is None:
        return "?"
    return f"{driver.state} fence {driver.fence}" + (f" pid {driver.pid}" if driver.pid else "")


def _last_commit(look: watchdog.Look) -> str:
    checkpoint = look.observation.checkpoint.value
    if checkpoint is None:
        return "?"
    return f"{checkpoint.last_commit_batch} at {checkpoint.last_commit_at:%H:%M:%S}" if checkpoint.last_commit_at else "none"


def _behind(look: watchdog.Look) -> str:
    head = look.observation.head.value
    if head is None:
        return "?"
    rows = "? rows" if head.lag_rows is None else f"{head.lag_rows:,} rows"
    return rows + (f", {head.lag_seconds:.0f} s" if head.lag_seconds is not None else "")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
