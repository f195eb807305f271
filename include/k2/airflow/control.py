"""What a person wants of the streams: checked, recorded with its reason, and compared with what became of it.

Only the watchdog acts on streams. This module writes down wishes and reads how far they are fulfilled.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from k2.airflow import moving
from k2.checkpoints import survey
from k2.checkpoints.doctor import Health
from k2.checkpoints.entries import Refused
from k2.checkpoints.reader import CheckpointUnreadable, read_tail
from k2.checkpoints.retention import Loss
from k2.launchers import rebuilding
from k2.launchers.client import AgentClient, AgentRefused, AgentUnavailable
from k2.launchers.retention import NotKnown, Preflight
from k2.registry.made_of import fingerprint
from k2.registry.observed import Failure, Verdict, Wanted
from k2.registry.platform import Platform
from k2.registry.runtime import Runtime
from k2.registry.shadow import LIMIT_SECONDS, Outcome, Shadow
from k2.registry.wishes import Standing, Wish
from k2.state import audit, certificates, retired, skips
from k2.state import streams as state
from k2.state.database import Connection, connect
from k2.supervision import wishes
from k2.supervision.failures import poison
from k2.supervision.wishes import End, Progress


class RequestRefused(AirflowFailException):
    """A request that makes no sense now, or that may not be carried out. Nothing was recorded of it but its refusal."""


@dataclass(frozen=True)
class Request:
    """What somebody filled into the form."""

    wish: Wish
    choice: str
    reason: str
    who: str
    run_id: str
    checkpoint: str = ""
    """Of retire and restore: a folder, or what lies in the quarantine or among the backups, by its name."""

    def __str__(self) -> str:
        return f"{self.wish} of {self.checkpoint or self.choice}"

    @classmethod
    def of(cls, context: Any) -> Request:
        """The request of a task's run."""
        params, run = context["params"], context["dag_run"]
        who = run.triggering_user_name or "unknown"
        return cls(Wish(params["action"]), params["stream"], params["reason"], who, run.run_id, (params.get("checkpoint") or "").strip())


@dataclass(frozen=True)
class Checked:
    """A request that makes sense: the streams that it is about, and what is asked of whoever approves it."""

    streams: list[str]
    risky: bool
    body: str = ""
    loss: dict[str, Any] | None = None
    """Of an adoption what it would lose as things are, as of k2.checkpoints.retention.Loss, None for nothing; of a rebuild what it would do."""


def check(runtime: Runtime, request: Request) -> Checked:
    """Raises RequestRefused with every objection, or database.StateUnavailable. Records nothing."""
    if request.wish.moves:
        planned = _moving(runtime, request)
        body = wishes.asking_to_move(request.who, request.wish, str(planned.subject), request.reason, planned.sentence, runtime.platform)
        return Checked([planned.target], risky=True, body=body, loss={"sentence": planned.sentence})
    if request.checkpoint:
        raise RequestRefused(f"checkpoint: {request.checkpoint!r} with action {request.wish.value!r}: only retire and restore take one: leave it empty")
    with connect(runtime, "reader") as connection:
        standings = _unobjectionable(runtime, connection, request)
        told = _told(runtime, connection, request)
        certified = {name: f"{row['color']}, {row['at']:%Y-%m-%d %H:%M} UTC" for name, row in certificates.latest(connection).items()}
    streams = wishes.targets(request.wish, request.choice, standings)
    if not wishes.needs_approval(request.wish, request.choice):
        return Checked(streams, risky=False)
    about = [s for s in standings if s.stream in streams]
    body = wishes.asking(request.who, request.wish, request.choice, request.reason, about, certified, runtime.platform, told["sentence"] if told else "")
    return Checked(streams, risky=True, body=body, loss=told)


def _moving(runtime: Runtime, request: Request) -> moving.Planned:
    """What retiring or restoring would do now. Raises RequestRefused."""
    try:
        with connect(runtime, "reader") as connection:
            return moving.plan(runtime, connection, request.wish, request.choice, request.checkpoint)
    except Refused as error:
        raise RequestRefused(f"Nothing was recorded. {error}") from None


def _move(runtime: Runtime, request: Request, approved_by: str | None, shown: dict[str, Any] | None) -> dict[str, int]:
    """Retire or restore as it was approved. Returns the generation of the stream, if there is one. Raises RequestRefused."""
    planned = _moving(runtime, request)
    if shown is None or planned.sentence != shown["sentence"]:
        raise RequestRefused(f"Nothing was done. By now it would be: {planned.sentence}: ask again")
    try:
        because = moving.carry_out(runtime, planned, who=request.who, reason=request.reason)
    except Refused as error:
        raise RequestRefused(f"It was not done: {error}") from None
    conclude(runtime, request, {planned.target: ("done", because)}, decided_by=approved_by)
    if planned.subject.stream is None:
        return {}
    with connect(runtime, "reader") as connection:
        return {planned.subject.stream: state.wanted(connection, planned.subject.stream).generation}


def _told(runtime: Runtime, connection: Connection, request: Request) -> dict[str, Any] | None:
    if request.wish is Wish.REBUILD:
        return rebuilding.told(_rebuilt(runtime, connection, request, str(uuid.uuid4())))
    loss = _loss(runtime, connection, request)
    return loss.as_dict() if loss else None


def _rebuilt(runtime: Runtime, connection: Connection, request: Request, query: str) -> rebuilding.Made:
    """The plan as things are, which the start makes anew. Raises RequestRefused when there is none."""
    try:
        return rebuilding.plan(runtime, connection, request.choice, query, state.wanted(connection, request.choice))
    except (NotKnown, rebuilding.Impossible) as error:
        raise RequestRefused(f"Nothing was recorded. {request.choice}: {error}") from None


def _loss(runtime: Runtime, connection: Connection, request: Request) -> Loss | None:
    """What adopting the stream would lose as things are. Raises RequestRefused when that cannot be known."""
    if request.wish is not Wish.ADOPT:
        return None
    try:
        return Preflight(runtime, request.choice).loss(connection, read_tail(runtime.checkpoint(request.choice)))
    except (NotKnown, CheckpointUnreadable) as error:
        raise RequestRefused(f"Nothing was recorded. What {request.choice} would lose cannot be known: {error}: mend that, then ask again") from None


def _unobjectionable(runtime: Runtime, connection: Connection, request: Request) -> list[Standing]:
    """How the chosen streams stand. Raises RequestRefused when the request makes no sense for them."""
    try:
        chosen = wishes.in_order(request.wish, wishes.select(request.choice, runtime.platform), runtime.platform)
    except ValueError as error:
        raise RequestRefused(str(error)) from None
    tombstones = {runtime.platform.streams[name].checkpoint: name for name in chosen}
    gone = {tombstones[folder]: str(found) for folder, found in retired.all_of(connection).items() if folder in tombstones}
    standings = [replace(s, retired=gone.get(s.stream)) for s in audit.standings(connection, chosen)]
    broken = _broken(runtime, request.choice) if request.wish is Wish.REBUILD and not wishes.names_several(request.choice) else None
    if found := wishes.objections(request.wish, request.choice, standings, datetime.now(UTC), broken):
        raise RequestRefused("Nothing was recorded. " + " ".join(found))
    if request.wish is Wish.SKIP_POISON:
        _to_skip(runtime, request.choice, state.wanted(connection, request.choice))
    return standings


def _broken(runtime: Runtime, stream: str) -> str | None:
    """How a stream's checkpoint is gone or damaged; None when it is neither, as far as can be known."""
    (found,) = survey.examine_all(runtime, datetime.now(UTC), [runtime.platform.streams[stream].checkpoint])
    if not found.exists:
        return "it is not there"
    return found.findings[0].evidence if found.health is Health.DAMAGED else None


def _to_skip(runtime: Runtime, stream: str, wanted: Wanted) -> Failure:
    try:
        return to_skip(runtime.platform, stream, wanted)
    except ValueError as error:
        raise RequestRefused(f"Nothing was recorded. {error}") from None


def prove(runtime: Runtime, request: Request) -> list[Shadow]:
    """Have the host agent try the code and configuration of now on a copy of each stream's checkpoint. No running driver is touched.

    Raises RequestRefused when they do not fit one of them, or when that could not be found out; the audit log keeps the reason.
    """
    with connect(runtime, "reader") as connection:
        standings = _unobjectionable(runtime, connection, request)
    chosen = wishes.targets(request.wish, request.choice, standings)
    found: list[Shadow] = []
    for stands in (s for s in standings if s.stream in chosen):
        tried = _try(runtime, stands)
        if found and tried.outcome is Outcome.COMPATIBLE and tried.made_of != found[0].made_of:
            tried = Shadow(stands.stream, Outcome.UNKNOWN, f"code or configuration changed after {found[0].stream} was tried: ask again")
        if tried.outcome is not Outcome.COMPATIBLE:
            what = "does not fit its checkpoint" if tried.outcome is Outcome.INCOMPATIBLE else "could not be tried on its checkpoint"
            because = f"{', '.join(chosen)} not upgraded, and no running driver touched: code or configuration of now {what}, {stands.stream}: {tried.because}"
            outcome = "incompatible" if tried.outcome is Outcome.INCOMPATIBLE else "not proven"
            conclude(runtime, request, dict.fromkeys(chosen, (outcome, because)))
            raise RequestRefused(because)
        found.append(tried)
    return found


def _try(runtime: Runtime, stands: Standing) -> Shadow:
    try:
        with AgentClient(runtime) as agent:
            return agent.shadow(stands.stream, str(stands.query_id), LIMIT_SECONDS)
    except (AgentUnavailable, AgentRefused) as error:
        return Shadow(stands.stream, Outcome.UNKNOWN, str(error))


def to_skip(platform: Platform, stream: str, wanted: Wanted) -> Failure:
    """What the stream's last deaths blame. Raises ValueError when there is nothing that could be skipped."""
    if platform.streams[stream].type == "bronze":
        raise ValueError(
            f"stream: {stream!r} is a Bronze stream, which keeps every record as it is, so none can be its poison: "
            "read its log, mend the cause, and use the action start"
        )
    found = poison(wanted.lately)
    if found is None or wanted.ended_at is None:
        raise ValueError(f"stream: {stream!r} is not held as {Verdict.POISONED}: there is nothing to skip")
    if not found.records:
        raise ValueError(f"stream: {stream!r} fails at records that nobody could name, so none can be skipped: read its log, mend the cause, and use start")
    return found


def record(
    runtime: Runtime, request: Request, *, approved_by: str | None = None, proven: str | None = None, shown: dict[str, Any] | None = None
) -> dict[str, int]:
    """Write down the wish for each stream, all or none. Returns the generation to wait for, per stream.

    `proven` is the fingerprint of what a shadow has tried, `shown` what whoever approved an adoption or a rebuild was told.
    Retiring and restoring are done here: their streams are stopped and stay so, and no driver is touched.
    Raises RequestRefused when the request makes no sense any more, or needs an approval or a proof that it does not have.
    """
    wish = request.wish
    if wish is Wish.UPGRADE and proven != fingerprint(runtime):
        raise RequestRefused(f"action: {wish.value!r} of {request.choice!r}: the code or configuration of now is not what was tried: ask again")
    if wishes.needs_approval(wish, request.choice) and approved_by is None:
        raise RequestRefused(f"action: {wish.value!r} of {request.choice!r} needs an approval, and nobody gave one: ask again")
    if wish.moves:
        return _move(runtime, request, approved_by, shown)
    wants = {}
    with connect(runtime, "control") as connection:
        standings = _unobjectionable(runtime, connection, request)
        if more := _loses_more(runtime, connection, request, shown):
            raise RequestRefused(f"Nothing was recorded. It would lose more by now than whoever approved it was told: {more}: ask again")
        rebuild = shown if wish is Wish.REBUILD else None
        common = {"who": request.who, "action": str(wish), "reason": request.reason, "request": request.run_id, "approved_by": approved_by}
        for stream in wishes.targets(wish, request.choice, standings):
            now = state.wanted(connection, stream)
            if wishes.fulfilled_already(wish, now):
                stands = audit.standing(connection, stream).as_audit()
                audit.record(connection, target=stream, before=stands, after=stands, outcome="nothing to do", **common)
                wants[stream] = now.generation
            else:
                if wish is Wish.SKIP_POISON:
                    skips.add(connection, stream, _to_skip(runtime, stream, now), who=request.who, reason=request.reason)
                wants[stream] = state.want(connection, stream, wish.desired, adopt=wish is Wish.ADOPT, accepted_loss=shown, rebuild=rebuild, **common)
    return wants


def _loses_more(runtime: Runtime, connection: Connection, request: Request, shown: dict[str, Any] | None) -> str | None:
    """What a request would lose by now beyond what was told, in a sentence; None for nothing."""
    if request.wish is Wish.REBUILD:
        if shown is None:
            raise RequestRefused("Nothing was recorded. What it would do was told to nobody: ask again")
        made = _rebuilt(runtime, connection, request, shown["query"])
        return made.sentence().rstrip(".") if rebuilding.loses_more(shown, made) else None
    loss = _loss(runtime, connection, request)
    return loss.sentence if loss is not None and (shown is None or not Loss.of(shown).covers(loss)) else None


def conclude(runtime: Runtime, request: Request, outcomes: dict[str, tuple[str, str]], *, decided_by: str | None = None) -> None:
    """Add what became of a request to the audit log: per stream an outcome and a sentence."""
    with connect(runtime, "control") as connection:
        for stream, (outcome, because) in outcomes.items():
            stands = audit.standing(connection, stream).as_audit() if stream in runtime.platform.streams else {}
            audit.record(
                connection,
                who=request.who,
                action=str(request.wish),
                target=stream,
                reason=request.reason,
                before=stands,
                after={**stands, "because": because},
                outcome=outcome,
                request=request.run_id,
                approved_by=decided_by,
            )


def read_progress(runtime: Runtime, desired: str, wants: dict[str, int], since: datetime | None = None) -> dict[str, Progress]:
    """How far each wish, recorded at `since`, is now."""
    found = {}
    with connect(runtime, "control") as connection:
        rows = connection.execute("SELECT stream, verdict, because FROM k2.verdicts").fetchall()
        verdicts = {row["stream"]: (Verdict(row["verdict"]), row["because"]) for row in rows}
        for stream, generation in wants.items():
            verdict, because = verdicts.get(stream, (None, "the watchdog has not looked yet"))
            last = state.end_since(connection, stream, since) if since else None
            found[stream] = wishes.progress(desired, generation, state.wanted(connection, stream), verdict, because, End(**last) if last else None)
    return found
