"""Groups of verdicts and actions, by what they mean for whoever decides, acts and tells."""

from __future__ import annotations

from datetime import timedelta

from k2.registry.observed import Action, Decision, Verdict

ACTS = frozenset({Action.START, Action.STOP, Action.REPLACE, Action.END_OLDER})
HEALTHY = frozenset({Verdict.IDLE, Verdict.PROGRESSING})
HUNG = frozenset({Verdict.SUSPECT_DRIVER, Verdict.HUNG_SOURCE, Verdict.HUNG_PROCESSING, Verdict.HUNG_START, Verdict.QUERY_DEAD})
"""Its driver lives and does not do its work."""
HELD = frozenset({Verdict.REWIND, Verdict.POISONED, Verdict.INCOMPATIBLE, Verdict.CRASH_LOOP})
"""It is down, and restarting it would be wrong."""
TROUBLE = frozenset({Verdict.DEAD, Verdict.SPLIT_BRAIN, Verdict.HEAD_MISMATCH, Verdict.WAITING_DEPENDENCY}) | HELD | HUNG - {Verdict.SUSPECT_DRIVER}
"""What people are told of."""
CALM = HEALTHY | {Verdict.STOPPED}

STANDS = timedelta(seconds=12)
"""A hang is acted on when another reading, each ten seconds, has found it too: a clock that is set forward makes everything look old once."""

OUTDATED = timedelta(seconds=150)
"""A verdict that nobody has confirmed for so long says nothing of now: the clock alone makes a look each minute."""


def in_trouble(decision: Decision) -> bool:
    """Whether people are to be told: of a hang once it has stood, or at once where its restart is put off for longer than that."""
    if decision.verdict not in HUNG:
        return decision.verdict in TROUBLE
    return decision.action is Action.START or (decision.verdict in TROUBLE and _is_put_off(decision))


def _is_put_off(decision: Decision) -> bool:
    if decision.not_before is None or decision.detected_at is None:
        return True  # other streams go first
    return decision.not_before - decision.detected_at > STANDS
