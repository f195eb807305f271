"""Desired state, fence and launches of the streams. Every function takes an open transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from k2.registry.observed import Death, Failure, FailureClass, Wanted
from k2.state import audit
from k2.state.database import Connection


class LostRace(RuntimeError):
    """Another watchdog raised the fence first. Look again; do not repeat."""


_WANTED = """
    SELECT s.stream, s.desired, s.generation, s.fence, l.generation AS launch_generation,
           l.detected_at AS launch_detected_at, l.intent_at, l.launched_at, l.begins_after, l.first_commit_at, l.first_commit_batch, l.ended_at,
           (SELECT count(*) FROM k2.launches d
            WHERE d.stream = s.stream AND d.end_reason IN ('died', 'hung') AND coalesce(d.failure_class, '') NOT IN ('dependency', 'fenced')
            AND d.fence > greatest(
                s.forgiven_fence, (SELECT max(fence) FROM k2.launches e WHERE e.stream = s.stream AND e.end_reason = 'stopped'))) AS deaths,
           (SELECT max(ended_at) FROM k2.launches d WHERE d.stream = s.stream AND d.end_reason IN ('died', 'hung')) AS last_death_at,
           (SELECT jsonb_object_agg(name, at) FROM (SELECT substring(key FROM 12) AS name, max(resolved_at) AS at FROM k2.incidents
                WHERE key LIKE 'dependency:%%' AND resolved_at IS NOT NULL GROUP BY key) a) AS answered,
           v.verdict, v.since AS verdict_since, s.known_query_id, s.known_batch, s.held_for, s.adopted_generation, s.rebuild_generation,
           (SELECT jsonb_agg(to_jsonb(d) ORDER BY d.fence DESC) FROM (
                SELECT fence, generation, ended_at, exit_code, failure_class, fingerprint, failed_batch, failed_records, failed_narrowed, failed_dependency,
                       greatest(0, coalesce((SELECT n.first_commit_batch FROM k2.launches n
                            WHERE n.stream = s.stream AND n.fence > c.fence AND n.first_commit_batch IS NOT NULL ORDER BY n.fence LIMIT 1),
                            s.known_batch + 1) - first_commit_batch) AS commits
                FROM k2.launches c WHERE c.stream = s.stream AND c.end_reason IN ('died', 'hung') ORDER BY fence DESC LIMIT 20) d) AS lately
    FROM k2.streams s LEFT JOIN k2.launches l ON l.stream = s.stream AND l.fence = s.fence LEFT JOIN k2.verdicts v ON v.stream = s.stream
"""


def wanted(connection: Connection, stream: str) -> Wanted:
    """What people want of a stream, and how its last launch went.

    `deaths` counts the launches that died since the last one that was forgiven, or that was stopped on request.
    Raises LookupError for a stream without a row.
    """
    row = connection.execute(_WANTED + "WHERE s.stream = %s", (stream,)).fetchone()
    if row is None:
        raise LookupError(f"stream {stream!r} is not registered in the database: run ./k2 up again")
    return _wanted(row)


def wanted_all(connection: Connection) -> dict[str, Wanted]:
    """The same of every registered stream, by name, in one query."""
    return {row["stream"]: _wanted(row) for row in connection.execute(_WANTED).fetchall()}


def _wanted(row: dict[str, Any]) -> Wanted:
    lately = tuple(_death(death) for death in row["lately"] or ())
    answered = {name: datetime.fromisoformat(at) for name, at in (row["answered"] or {}).items()}
    return Wanted(**{**{name: value for name, value in row.items() if name != "stream"}, "lately": lately, "answered": answered})


def _death(row: dict[str, Any]) -> Death:
    return Death(
        fence=row["fence"],
        generation=row["generation"],
        at=datetime.fromisoformat(row["ended_at"]),
        kind=FailureClass(row["failure_class"] or FailureClass.INFRASTRUCTURE),
        exit_code=row["exit_code"],
        commits=row["commits"] or 0,
        failure=Failure(
            row["fingerprint"] or "",
            row["failed_batch"],
            row["failed_records"],
            bool(row["failed_narrowed"]),
            row["failed_dependency"],
        ),
    )


def wanted_of(connection: Connection, names: Iterable[str]) -> dict[str, Wanted]:
    """The same of the named streams; one that is not registered is missing."""
    rows = connection.execute(_WANTED + "WHERE s.stream = ANY(%s)", (list(names),)).fetchall()
    return {row["stream"]: _wanted(row) for row in rows}


def want(
    connection: Connection,
    stream: str,
    desired: str,
    *,
    who: str,
    action: str,
    reason: str,
    adopt: bool = False,
    accepted_loss: Mapping[str, Any] | None = None,
    rebuild: Mapping[str, Any] | None = None,
    request: str | None = None,
    approved_by: str | None = None,
) -> int:
    """Record what a person wants of a stream, with the audit entry. Returns the new generation.

    With `adopt`, its checkpoint is right as it is now, and what its source lost may be lost: no more than `accepted_loss`. With `rebuild`, its
    checkpoint is made again: that is what whoever approved it was told.
    """
    connection.execute("SELECT 1 FROM k2.streams WHERE stream = %s FOR UPDATE", (stream,))
    before = audit.standing(connection, stream)
    if adopt:
        forget_checkpoint(connection, stream, accepted_loss)
    if rebuild is not None:
        # What is known of the old checkpoint stays until the start has replaced it.
        connection.execute(
            "UPDATE k2.streams SET held_for = NULL, rebuild_generation = generation + 1, rebuild_told = %s WHERE stream = %s", (Jsonb(rebuild), stream)
        )
    connection.execute("UPDATE k2.streams SET desired = %s, generation = generation + 1 WHERE stream = %s", (desired, stream))
    after = audit.standing(connection, stream)
    audit.record(
        connection,
        who=who,
        action=action,
        target=stream,
        reason=reason,
        before=before.as_audit(),
        after=after.as_audit(),
        request=request,
        approved_by=approved_by,
    )
    return after.generation


def raise_fence(
    connection: Connection,
    stream: str,
    *,
    seen: int,
    generation: int,
    reason: str,
    detected_at: datetime | None,
    decided_at: datetime | None = None,
    begins_after: int | None = None,
) -> int:
    """Take the stream: raise its fence by one and record the intent to launch, in this transaction.

    `begins_after` is the last batch that its checkpoint has committed.

    From the moment this commits, the catalog refuses every commit of an older driver.
    Raises LostRace when the fence is no longer the one that the caller has `seen`.
    """
    row = connection.execute("UPDATE k2.streams SET fence = fence + 1 WHERE stream = %s AND fence = %s RETURNING fence", (stream, seen)).fetchone()
    if row is None:
        raise LostRace(f"the fence of {stream} is no longer {seen}: another watchdog has started it")
    connection.execute(
        "INSERT INTO k2.launches (stream, fence, generation, reason, detected_at, decided_at, begins_after) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (stream, row["fence"], generation, reason, detected_at, decided_at, begins_after),
    )
    return int(row["fence"])


def launched(connection: Connection, stream: str, fence: int, how: str) -> None:
    connection.execute(
        "UPDATE k2.launches SET launched_at = clock_timestamp(), how = %s WHERE stream = %s AND fence = %s AND launched_at IS NULL", (how, stream, fence)
    )


def first_commit(connection: Connection, stream: str, fence: int, at: datetime, batch: int) -> None:
    connection.execute(
        "UPDATE k2.launches SET first_commit_at = %s, first_commit_batch = %s WHERE stream = %s AND fence = %s AND first_commit_at IS NULL",
        (at, batch, stream, fence),
    )


def ended(
    connection: Connection,
    stream: str,
    fence: int,
    *,
    at: datetime,
    exit_code: int | None,
    reason: str,
    kind: FailureClass | None = None,
    failure: Failure | None = None,
    drained: bool | None = None,
) -> None:
    """`reason` is one of died, hung, stopped, replaced; `kind` and `failure` are those of a death, `drained` of an end that was asked for.

    The first word on a launch stands.
    """
    said = failure or Failure()
    connection.execute(
        """
        UPDATE k2.launches SET ended_at = %s, exit_code = %s, end_reason = %s, failure_class = %s, fingerprint = %s,
            failed_batch = %s, failed_records = %s, failed_narrowed = %s, failed_dependency = %s, drained = %s
        WHERE stream = %s AND fence = %s AND ended_at IS NULL
        """,
        (
            *(at, exit_code, reason, kind, said.fingerprint or None, said.batch),
            *(Jsonb(said.records) if said.records else None, said.narrowed if said.records else None, said.dependency, drained),
            *(stream, fence),
        ),
    )


def end_since(connection: Connection, stream: str, since: datetime) -> dict[str, Any] | None:
    """The last launch that ended on request after a moment: {"fence", "drained", "exit_code"}; None when there is none."""
    return connection.execute(
        """
        SELECT fence, drained, exit_code FROM k2.launches
        WHERE stream = %s AND ended_at >= %s AND end_reason IN ('stopped', 'replaced') ORDER BY fence DESC LIMIT 1
        """,
        (stream, since),
    ).fetchone()


def know(connection: Connection, found: Mapping[str, tuple[str, int, int]]) -> None:
    """Remember the identity and the highest committed batch of streams' checkpoints, each read under the fence named last. The first identity stands.

    A stream that somebody holds is left out until the next time: a driver that is frozen inside its commit must delay no other.
    """
    if not found:
        return
    connection.execute(
        """
        WITH free AS (SELECT stream FROM k2.streams WHERE stream = ANY(%(streams)s) FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE k2.streams s SET known_query_id = f.id, known_batch = f.batch
        FROM unnest(%(streams)s::text[], %(ids)s::text[], %(batches)s::bigint[], %(fences)s::bigint[]) AS f (stream, id, batch, fence) JOIN free USING (stream)
        WHERE s.stream = f.stream AND s.fence = f.fence AND coalesce(s.known_query_id, f.id) = f.id AND coalesce(s.known_batch, -1) < f.batch
        """,
        {
            "streams": list(found),
            "ids": [query_id for query_id, _, _ in found.values()],
            "batches": [batch for _, batch, _ in found.values()],
            "fences": [fence for _, _, fence in found.values()],
        },
    )


def hold(connection: Connection, stream: str, generation: int, why: str) -> None:
    """Do not start the stream for this generation, nor for any that no person adopts it with."""
    connection.execute("UPDATE k2.streams SET held_for = %s WHERE stream = %s AND generation = %s", (why, stream, generation))


def forget_checkpoint(connection: Connection, stream: str, accepted_loss: Mapping[str, Any] | None = None) -> None:
    """The generation that is about to be asked for adopts the stream: its checkpoint is right as it is now, and what its source lost is lost."""
    connection.execute(
        "UPDATE k2.streams SET held_for = NULL, adopted_generation = generation + 1, adopted_loss = %s WHERE stream = %s",
        (Jsonb(accepted_loss) if accepted_loss else None, stream),
    )
    expect_new_checkpoint(connection, stream)


def expect_new_checkpoint(connection: Connection, stream: str) -> None:
    """Whatever was seen of the stream's checkpoint before counts no more."""
    connection.execute("UPDATE k2.streams SET known_query_id = NULL, known_batch = NULL WHERE stream = %s", (stream,))


def record_adoption(connection: Connection, stream: str, fence: int, lost: Mapping[str, Sequence[int]] | None) -> None:
    """The launch with this fence goes on from what a person adopted; it may skip `lost`, first offset and the one after the last per partition."""
    connection.execute(
        "UPDATE k2.launches SET adopted = true, accepted_loss = %s WHERE stream = %s AND fence = %s", (Jsonb(lost) if lost else None, stream, fence)
    )


def record_rebuild(connection: Connection, stream: str, fence: int, lost: Mapping[str, Sequence[int]], begins_after: int | None) -> None:
    """The launch with this fence goes on from a checkpoint that was made again and has committed `begins_after`; `lost` is gone for ever."""
    connection.execute(
        "UPDATE k2.launches SET adopted = true, rebuilt = true, accepted_loss = %s, begins_after = %s WHERE stream = %s AND fence = %s",
        (Jsonb(lost) if lost else None, begins_after, stream, fence),
    )


def rebuild_told(connection: Connection, stream: str) -> dict[str, Any] | None:
    """What the last person who had the stream's checkpoint made again was told."""
    row = connection.execute("SELECT rebuild_told FROM k2.streams WHERE stream = %s", (stream,)).fetchone()
    return row["rebuild_told"] if row else None


def adopted_loss(connection: Connection, stream: str) -> dict[str, Any] | None:
    """What the last person who adopted the stream was told that it would lose; None for nothing."""
    row = connection.execute("SELECT adopted_loss FROM k2.streams WHERE stream = %s", (stream,)).fetchone()
    return row["adopted_loss"] if row else None


def accepted_loss(connection: Connection, stream: str, fence: int) -> dict[str, list[int]] | None:
    """What the driver of a launch may pass by; None of one whose checkpoint begins behind it."""
    row = connection.execute("SELECT accepted_loss FROM k2.launches WHERE stream = %s AND fence = %s AND NOT rebuilt", (stream, fence)).fetchone()
    return row["accepted_loss"] if row else None


def accepted_losses(connection: Connection, stream: str) -> dict[str, list[tuple[int, int]]]:
    """Everything that people have ever accepted as lost for a stream, per partition."""
    rows = connection.execute("SELECT accepted_loss FROM k2.launches WHERE stream = %s AND accepted_loss IS NOT NULL", (stream,)).fetchall()
    found: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        for partition, (first, end) in row["accepted_loss"].items():
            found.setdefault(partition, []).append((first, end))
    return found


def forgive(connection: Connection, stream: str, fence: int) -> None:
    """Earlier deaths no longer count towards the backoff. A stream that somebody holds is left until the next time."""
    connection.execute(
        """
        UPDATE k2.streams SET forgiven_fence = %(fence)s
        WHERE stream = (SELECT stream FROM k2.streams WHERE stream = %(stream)s AND forgiven_fence < %(fence)s FOR NO KEY UPDATE SKIP LOCKED)
        """,
        {"stream": stream, "fence": fence - 1},
    )


def launches(connection: Connection, stream: str | None = None) -> list[dict[str, Any]]:
    """The ledger of starts, oldest first."""
    return connection.execute(
        "SELECT * FROM k2.launches WHERE %(stream)s::text IS NULL OR stream = %(stream)s ORDER BY intent_at", {"stream": stream}
    ).fetchall()
