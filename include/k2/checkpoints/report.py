"""What was found of checkpoints, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k2.checkpoints.doctor import Finding
from k2.checkpoints.entries import Entry
from k2.checkpoints.examine import Examination
from k2.checkpoints.manifest import Manifest


def markdown(examinations: Sequence[Examination]) -> str:
    """A table of the checkpoints, then every finding with its consequence and fix, the worst first."""
    lines = [
        "| checkpoint | stream | health | query id | source | last planned / committed | last commit (UTC) | files | size | growth a day |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for e in examinations:
        if not e.exists:
            lines.append(f"| {e.folder} | {e.stream} | {e.absence} | – | – | – | – | – | – | – |")
            continue
        at = e.committed_at.strftime("%Y-%m-%d %H:%M:%S") if e.committed_at else "–"
        progress = f"{_or_dash(e.planned)} / {_or_dash(e.committed)}"
        whose, growth = e.stream or "**unclaimed**", "–" if e.growth_per_day is None else signed(e.growth_per_day)
        sources = ", ".join(e.sources) or "–"
        lines.append(f"| {e.folder} | {whose} | {e.health} | {e.query_id or '–'} | {sources} | {progress} | {at} | {e.files:,} | {size(e.bytes)} | {growth} |")
    found = sorted(((e, f) for e in examinations for f in e.findings), key=lambda pair: pair[1].health.rank, reverse=True)
    return "\n".join([*lines, "", *([f"* **{e.folder}** is {sentence(f)}" for e, f in found] or ["Nothing is wrong."])])


def pruned(done: Sequence[Mapping[str, Any]], purged: Sequence[str], entries: Sequence[Entry], *, dry_run: bool) -> str:
    """What was taken out of the checkpoints, what was deleted for good, and what lies in the quarantine."""
    verb = "would go" if dry_run else "taken away"
    lines = ["| checkpoint | files | size | can go back from | |", "|---|---|---|---|---|"]
    for one in done:
        stayed = "; ".join(f"{count:,} stayed: {why}" for why, count in one["stayed"].items())
        lines.append(f"| {one['folder']} | {one['files']:,} {verb} | {size(one['bytes'])} | {one['entry'] or '–'} | {one.get('why') or stayed or ''} |")
    lies = [f"* {e.folder.name}: {e.wrong or _entry(e.manifest)}" for e in entries]
    gone = f"{'Would be deleted' if dry_run else 'Deleted'} for good: {', '.join(purged) or 'nothing'}."
    return "\n".join([*lines, "", gone, "", *(["**In the quarantine:**", *lies] if lies else ["The quarantine is empty."])])


def _entry(manifest: Manifest | None) -> str:
    return f"{manifest.kind}, {manifest.files:,} files, {size(manifest.bytes)}, by {manifest.who} at {manifest.at:%Y-%m-%d %H:%M} UTC" if manifest else ""


def sentence(finding: Finding) -> str:
    return f"{finding.health}: {finding.evidence}. What follows: {finding.consequence}. What to do: {finding.fix}."


def _or_dash(number: int | None) -> str:
    return "–" if number is None else str(number)


def signed(count: float) -> str:
    return f"{'-' if count < 0 else '+'}{size(abs(count))}"


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
