"""The nightly report on checkpoints as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from k2.checkpoints.examine import Examination, could_go


def markdown(examinations: Sequence[Examination]) -> str:
    """A table of the checkpoints, then what is wrong, then what could go and why."""
    lines = ["| checkpoint | stream | query id | batches kept | last planned / committed | files | size | last change |", "|---|---|---|---|---|---|---|---|"]
    for e in examinations:
        if not e.exists:
            lines.append(f"| {e.folder} | {e.stream} | – | – | – | – | – | never started |")
            continue
        changed = e.last_change.strftime("%Y-%m-%d %H:%M:%S") if e.last_change else "–"
        planned = "–" if e.last_planned is None else e.last_planned
        committed = "–" if e.last_committed is None else e.last_committed
        whose = e.stream or "**unclaimed**"
        lines.append(f"| {e.folder} | {whose} | {e.query_id or '–'} | {e.batches} | {planned} / {committed} | {e.files} | {size(e.bytes)} | {changed} |")
    wrong = [f"* **{e.folder}**: {anomaly}" for e in examinations for anomaly in e.anomalies]
    going = [f"* **{e.folder}**: {reason}" for e in examinations for reason in could_go(e)]
    lines += ["", "**Wrong:**" if wrong else "**Wrong:** nothing.", *wrong]
    lines += ["", "**Could go** (nothing was changed):" if going else "**Could go:** nothing.", *going]
    return "\n".join(lines)


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
