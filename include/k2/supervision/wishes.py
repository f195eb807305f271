"""The rules of what people ask of the streams: what makes sense, what needs a second look, and how far a wish is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from k2.registry.observed import ExitCode, Verdict, Wanted
from k2.registry.platform import Platform
from k2.registry.wishes import Selection, Standing, Wish
from k2.supervision.verdicts import HEALTHY

REBUILT_FROM = frozenset({Verdict.REWIND, Verdict.INCOMPATIBLE})
"""Verdicts that say that a stream does not go on from its checkpoint."""
HELD_AS: dict[Wish, Verdict] = {Wish.ADOPT: Verdict.REWIND, Wish.SKIP_POISON: Verdict.POISONED}
"""Wishes that only make sense for a stream that is held with this verdict."""
RISKY = frozenset({*HELD_AS, Wish.REBUILD, Wish.RETIRE, Wish.RESTORE})
"""Wishes that may lose or double records: a second person looks at them first. Each is for one stream."""
ANOTHER_DRIVER = frozenset({Wish.RESTART, Wish.UPGRADE})
VERDICT_LIMIT = timedelta(minutes=5)
"""streams_watch looks every minute; an older verdict says nothing of now."""


@dataclass(frozen=True)
class Progress:
    """How far one wish is. `over` without `reached`: it will not come true any more."""

    reached: bool
    over: bool
    because: str


@dataclass(frozen=True)
class End:
    """How a launch ended that was asked to."""

    fence: int
    drained: bool | None
    exit_code: int | None

    def __str__(self) -> str:
        if self.drained:
            return f"its driver with fence {self.fence} drained: every batch that it had planned is committed"
        if self.drained is None:
            return f"whether its driver with fence {self.fence} drained is not known: nobody saw its end"
        how = "left with a planned batch" if self.exit_code == ExitCode.CUT_SHORT else f"was killed at the deadline (exit code {self.exit_code})"
        return f"its driver with fence {self.fence} did not drain, it {how}: the next driver replays the batch in flight"


def select(choice: str, platform: Platform) -> list[str]:
    """The streams that a choice of the form names. Raises ValueError for an unknown one, or one that names none."""
    if choice == Selection.ALL:
        return list(platform.streams)
    if choice in (Selection.BRONZE, Selection.SILVER):
        found = [name for name, spec in platform.streams.items() if spec.type == choice]
        if found:
            return found
    elif choice in platform.streams:
        return [choice]
    raise ValueError(f"stream: {choice!r} names no stream: use one of {', '.join(platform.streams)}, {', '.join(Selection)}")


def names_several(choice: str) -> bool:
    return choice in set(Selection)


def in_order(wish: Wish, streams: Iterable[str], platform: Platform) -> list[str]:
    """Readers stop before what they read, and start after it."""
    layers = {"silver": 0, "bronze": 1} if wish is Wish.STOP else {"bronze": 0, "silver": 1}
    return sorted(streams, key=lambda name: layers[platform.streams[name].type])


def targets(wish: Wish, choice: str, standings: Sequence[Standing]) -> list[str]:
    """The streams that a wish is about: another driver for several leaves alone what somebody has stopped, any driver what somebody has retired."""
    if names_several(choice) and wish is not Wish.STOP:
        standings = [s for s in standings if s.retired is None]
    if wish in ANOTHER_DRIVER and names_several(choice):
        return [s.stream for s in standings if s.desired == "running"]
    return [s.stream for s in standings]


def objections(wish: Wish, choice: str, standings: Sequence[Standing], now: datetime, broken: str | None = None) -> list[str]:
    """Why a request makes no sense, one sentence each with the field, its value and the fix. Empty when it may be recorded.

    `broken` says how the checkpoint of the one stream is gone or damaged; None when it is neither.
    """
    if wish in RISKY and names_several(choice):
        return [
            f"stream: {str(choice)!r} with action {wish.value!r}: that is done to one stream at a time: choose one of {', '.join(s.stream for s in standings)}"
        ]
    chosen = targets(wish, choice, standings)
    if not chosen:
        fix = " or retired: use action 'restore' for one of them" if any(s.retired for s in standings) else ": use action 'start'"
        return [f"action: {wish.value!r} of {str(choice)!r}: all of its streams are stopped{fix}"]
    if names_several(choice) and wish is not Wish.UPGRADE:
        return []
    return [f"action: {wish.value!r} of {s.stream}: {why}" for s in standings if s.stream in chosen and (why := _objection(wish, s, now, broken))]


def _objection(wish: Wish, stream: Standing, now: datetime, broken: str | None) -> str | None:
    if stream.retired and wish not in (Wish.STOP, Wish.REBUILD) and not wish.moves:
        return f"{stream.retired}: use action 'restore' to bring it back, or 'rebuild' to have another one made from its tables"
    fresh = stream.verdict is not None and stream.seen_at is not None and now - stream.seen_at <= VERDICT_LIMIT
    if needed := HELD_AS.get(wish):
        if not fresh:
            return f"the watchdog has not judged it for {_age(stream, now)}, so nobody knows whether it is held: see that streams_watch runs, then ask again"
        if stream.verdict != needed:
            return f"it is {stream.verdict}, and only a stream that is held as {needed} needs that: use action 'restart' for a new driver"
    if wish is Wish.REBUILD and broken is None and stream.desired != "stopped":
        if not fresh:
            return f"the watchdog has not judged it for {_age(stream, now)}, so nobody knows whether it is held: see that streams_watch runs, then ask again"
        if stream.verdict not in REBUILT_FROM:
            return f"it is {stream.verdict} and its checkpoint is whole, so nothing has to be made again: use action 'restart', or 'stop' it first"
    if wish is Wish.START and fresh and stream.verdict == Verdict.REWIND:
        way_out = "put its checkpoint back, or use action 'rebuild' or 'adopt'"
        return f"it is held as {stream.verdict} ({stream.because}), which a start does not override: {way_out}"
    if wish is Wish.RESTART and stream.desired == "stopped":
        return "somebody has stopped it: use action 'start'"
    if wish is Wish.UPGRADE:
        if stream.desired == "stopped" or not stream.runs:
            return "no driver of it runs, so there is nothing to upgrade: use action 'start', which runs the code and configuration of now"
        if stream.batch is None:
            return "it has not committed a batch yet, so there is nothing to try the new code against: use action 'restart'"
    return None


def _age(stream: Standing, now: datetime) -> str:
    return "ever" if stream.seen_at is None else f"{(now - stream.seen_at).total_seconds() / 60:.0f} min"


def needs_approval(wish: Wish, choice: str) -> bool:
    """Whether a second look comes first: what may lose or double records, and what silences many streams at once."""
    return wish in RISKY or (wish is Wish.STOP and names_several(choice))


def consequences(wish: Wish, platform: Platform) -> str:
    """What a wish that needs approval does, and what can be lost or doubled, for the person who approves it."""
    if wish is Wish.STOP:
        days = min(exchange.retention_days for exchange in platform.exchanges.values())
        return (
            f"Each driver finishes the batch in flight within {platform.restart.drain_timeout_seconds} s or is killed; then nothing is written until somebody "
            f"starts the streams again. Nothing is lost or doubled by that, unless they stay down for longer than Kafka keeps records: {days} days."
        )
    if wish is Wish.SKIP_POISON:
        return (
            "The records that the verdict names go to the dead-letter table as `poison_skipped` instead of Silver, and the stream goes on behind them. "
            "Silver never has them unless somebody decodes them later; no other record is lost or doubled."
        )
    if wish is Wish.REBUILD:
        return (
            "What lies in the place of its checkpoint goes into the quarantine, whole. A new one is made from its tables as they are when it is started, "
            "and it goes on behind what they hold. If that loses more than is said here, or cannot be done any more, it is not started and held again."
        )
    return (
        "That depends on why the stream is held. **Its checkpoint is another one, or ends before a committed batch:** it goes on from the one that is there; "
        "what it commits again is in its tables twice, and what that checkpoint has already passed is never read. **Kafka no longer holds records:** they "
        "are skipped for ever, and no others. **The topic was made anew, or the snapshot is gone:** the checkpoint is moved aside, and the stream begins at "
        "the oldest that its source holds; rows can be in its tables twice, or missing."
    )


def fulfilled_already(wish: Wish, wanted: Wanted) -> bool:
    """Whether recording the wish again would only disturb: a start of what was launched and lives, a stop of what is to be stopped.

    A restart is never fulfilled beforehand; a start of a stream that is down asks again, at once.
    """
    if wish is Wish.STOP:
        return wanted.desired == "stopped"
    return wish is Wish.START and wanted.desired == "running" and wanted.launched_at is not None and wanted.ended_at is None


def progress(desired: str, generation: int, wanted: Wanted, verdict: Verdict | None, because: str, end: End | None = None) -> Progress:
    """Compare a wish, recorded as `generation`, with the ledger and with the watchdog's last verdict.

    `end` is how the driver ended that ran when it was recorded, once that is known.
    """
    if wanted.generation > generation and wanted.desired != desired:
        return Progress(False, True, f"a later request wants it {wanted.desired}")
    lives = wanted.launch_generation is not None and wanted.ended_at is None
    before = f"; {end}" if end else ""
    if desired == "stopped":
        if not lives:
            return Progress(True, True, str(end) if end else "no driver of it runs")
        return Progress(False, False, f"its driver still runs: {verdict or 'no verdict yet'}: {because}")
    if not lives or (wanted.launch_generation or 0) < generation:
        return Progress(False, False, f"no driver was launched for this request yet: {verdict or 'no verdict yet'}: {because}{before}")
    if wanted.first_commit_at is not None:
        return Progress(True, True, f"its driver with fence {wanted.fence} has committed{before}")
    if verdict in HEALTHY:
        return Progress(True, True, f"{verdict}: {because}{before}")
    return Progress(False, False, f"launched, no commit yet: {verdict or 'no verdict yet'}: {because}{before}")


def asking_to_move(who: str, wish: Wish, what: str, reason: str, found: str, platform: Platform) -> str:
    """The same of a checkpoint that is retired or goes back."""
    return (
        f"**{who}** asks for **{wish}** of **{what}**: {reason}\n\n**What it does.** {found}.\n\n"
        f"No answer within {platform.control.approval_minutes} minutes is a no, and changes nothing."
    )


def asking(
    who: str, wish: Wish, choice: str, reason: str, standings: Sequence[Standing], certificates: Mapping[str, str], platform: Platform, loss: str = ""
) -> str:
    """What the person who approves reads, as Markdown. `certificates` has a sentence on the last one of a stream; `loss` is what adopting would lose now."""
    rows = "\n".join(
        f"| {s.stream} | {s.verdict or 'not judged yet'} | {'cannot be known' if s.lag_rows is None else f'{s.lag_rows:,}'} "
        f"| {'none' if s.batch is None else s.batch} | {certificates.get(s.stream, 'none')} |"
        for s in standings
    )
    found = f"\n\n**Found now:** {loss}." if loss else ""
    held = "".join(f"\n\n{s.stream}: {s.because}." for s in standings if wish in RISKY and s.because)
    return (
        f"**{who}** asks for **{wish}** of **{choice}**: {reason}\n\n"
        f"| stream | now | rows behind | last committed batch | last certificate |\n| --- | --- | --- | --- | --- |\n{rows}{held}{found}\n\n"
        f"**What it does.** {consequences(wish, platform)}\n\n"
        f"No answer within {platform.control.approval_minutes} minutes is a no, and changes nothing."
    )
