"""The figures of the hanging benchmark."""

from __future__ import annotations

from k2.bench.hang import HANGS, RIVAL, TRIGGERS, figures
from k2.chaos.plan import Kind


def test_each_hang_is_compared_with_what_its_trigger_promises() -> None:
    """45 s at a trigger of 5 s, 120 s at one of 30 s."""
    found = {(trigger, fault): [10.0, 20.0, 60.0] for trigger in TRIGGERS for fault in HANGS}
    by_name = {figure.what: figure for figure in figures(found)}
    assert len(by_name) == len(TRIGGERS) * len(HANGS)
    fast, slow = by_name[f"{Kind.DRIVER_FREEZE}, trigger 5 s"], by_name[f"{Kind.BROKER_HOLE}, trigger 30 s"]
    assert (fast.value, fast.rival, fast.rival_value, fast.ratio) == (20.0, RIVAL, 45, round(20 / 45, 3))
    assert (slow.rival_value, slow.ratio) == (120, round(20 / 120, 3))
