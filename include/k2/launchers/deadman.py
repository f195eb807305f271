"""The dead man's switch: the host agent tells people when nobody watches the streams, or when PostgreSQL cannot say.

Whether a watcher looked is seen by its row in k2.watchers changing, on the agent's own monotonic clock: no wall clock that
is set makes it ring or keeps it silent. The incident is kept in the database when that answers, so that a watcher that
returns does not tell it again; the message goes straight to Slack in any case.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import psycopg

from k2.alerts import direct
from k2.alerts.due import Due
from k2.registry.runtime import Runtime
from k2.state import database, incidents
from k2.supervision.deadman import Silence, Step, step

log = logging.getLogger(__name__)

ASK_EVERY_SECONDS = 10.0
ANSWER_MS = 5000
"""A database that is asked for longer does not answer."""
KEY = "watchers:streams_watch"
TITLE = "Nobody watches the streams"
RUNS = "watchdog"
"""The watcher that also acts: a run of streams_watch."""
WATCHERS = (RUNS, "poll")
COMPONENTS = ("airflow_scheduler", "airflow_triggerer")
"""In which the watchers run."""
TOLD = {Step.PAGE: Due.AGAIN, Step.REMIND: Due.REMINDER, Step.RESOLVE: Due.RESOLVED}
"""As what each step is told of an incident that has a message already."""
LOUD = frozenset({Due.AGAIN, Due.REMINDER})
ENDING = frozenset({"stopping", "stopped"})
ADVICE = (
    "The streams go on, but nobody restarts one that dies.\n"
    "What to do: ./k2 status shows which process of the platform is down, ./k2 logs NAME its log; ./k2 up starts what is missing."
)


class Airflow(Enum):
    WANTED = "wanted"
    NOT_WANTED = "not wanted"
    BEING_STOPPED = "being stopped"
    """On purpose, or to be started again: nobody is told meanwhile, and the silence goes on."""


@dataclass(frozen=True)
class Seen:
    """What the database says: when each watcher last looked, as text that is only compared, and the open incident of this switch."""

    looks: dict[str, str]
    incident: dict[str, Any] | None


class DeadManSwitch:
    """Asks and tells; `step` decides. For one thread at a time."""

    def __init__(self, runtime: Runtime, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._runtime, self._monotonic = runtime, monotonic
        self._silence = Silence(begun=monotonic())
        self._looks: dict[str, str] | None = None
        self._incident: dict[str, Any] | None = None
        """What people were told, as a row of k2.incidents, with the place of its message."""

    async def watch(self) -> None:
        """For ever. Nothing that goes wrong ends it."""
        while True:
            try:
                await asyncio.to_thread(self.turn)
            except Exception:
                log.exception("the dead man's switch failed, and goes on")
            await asyncio.sleep(ASK_EVERY_SECONDS)

    def turn(self) -> Step:
        """Ask once, and tell people if that is due. Returns what was told, NONE also for what Slack did not take."""
        now = self._monotonic()
        airflow = airflow_is(self._runtime)
        if airflow is Airflow.NOT_WANTED:
            self._silence = Silence(begun=now, told=self._silence.told)
            self._looks = None
        if airflow is not Airflow.WANTED:
            return Step.NONE
        seen, error = self._ask()
        if seen is not None:
            self._take(seen, now)
        due = step(self._runtime.platform.dead_man, self._silence, now)
        if due is Step.NONE:
            if seen is not None and seen.incident is not None and self._silence.told is None and self._silence.looked is not None:
                self._end_untold()
            return due
        try:
            self._tell(due, self._why(now, error), seen)
        except direct.NotTold as refusal:
            log.error("people could not be told (%s) that %s: %s", due, self._why(now, error), refusal)
            return Step.NONE
        self._silence = replace(self._silence, told=None if due is Step.RESOLVE else now)
        return due

    def _ask(self) -> tuple[Seen | None, str]:
        try:
            with self._database() as connection:
                return _read(connection), ""
        except (database.StateUnavailable, psycopg.Error, OSError) as error:
            return None, str(error).strip().splitlines()[0]

    def _take(self, seen: Seen, now: float) -> None:
        """The first answer shows only how things stand; a look is what changed since."""
        if self._looks is not None and seen.looks != self._looks:
            ran = seen.looks.get(RUNS) != self._looks.get(RUNS)
            self._silence = replace(self._silence, looked=now, ran=now if ran else self._silence.ran)
        self._looks = seen.looks
        if self._incident is None and seen.incident is not None and seen.incident["message"]:
            # An agent before this one told them.
            self._incident, self._silence = seen.incident, replace(self._silence, told=now)

    def _why(self, now: float, error: str) -> str:
        silent = f"{self._silence.seconds(now):.0f} s"
        if error:
            return f"PostgreSQL cannot be asked whether anybody looks, for {silent} nobody was seen to: {error}"
        if self._silence.looked is not None and self._silence.seconds(now) < self._runtime.platform.dead_man.silent_seconds:
            return f"the poll looks, but no run of streams_watch has for {self._silence.seconds_without_run(now):.0f} s, and only a run acts"
        who = "neither the poll nor a run of streams_watch has looked"
        return f"{who} for {silent}" if self._silence.looked is not None else f"{who} since {silent} ago, when the host agent began to wait for it"

    def _tell(self, due: Step, why: str, seen: Seen | None) -> None:
        """Slack first, then the database, which may answer questions and take nothing. Raises NotTold."""
        incident = self._incident or (seen.incident if seen else None) or _incident(why)
        if due is Step.RESOLVE:
            incident |= {"resolved_at": datetime.now(UTC), "resolution": "a watcher looks again"}
        else:
            incident |= {"detail": f"{why}\n{ADVICE}"}
        try:
            incident["message"] = direct.show(self._runtime, incident, TOLD[due], loud=LOUD)
        except direct.NotTold:
            if seen is not None and due is not Step.RESOLVE:
                self._keep(due, incident)
            raise
        self._incident = None if due is Step.RESOLVE else incident
        log.warning("%s: %s", due, why)
        if seen is not None:
            self._keep(due, incident)

    def _end_untold(self) -> None:
        """An incident that Slack never took ends with the silence; a run of streams_watch tells the rest."""
        try:
            with self._database() as connection:
                incidents.resolve_incident(connection, KEY, "a watcher looks again")
        except (database.StateUnavailable, psycopg.Error) as error:
            log.error("the end of the incident could not be kept: %s", error)

    def _keep(self, due: Step, incident: dict[str, Any]) -> None:
        """The incident as a row, and that people were told of it if they were."""
        try:
            with self._database() as connection:
                if due is not Step.RESOLVE:
                    incidents.open_incident(connection, KEY, incident["severity"], TITLE, incident["detail"])
                row = _open(connection)
                if row is None:
                    return
                if due is Step.RESOLVE:
                    incidents.resolve_incident(connection, KEY, incident["resolution"])
                    row["resolved_at"] = incident["resolved_at"]
                if incident["message"]:
                    incidents.told(connection, row, incident["message"])
                if self._incident is not None:
                    self._incident = row | {"message": incident["message"]}
        except (database.StateUnavailable, psycopg.Error) as error:
            log.error("that people were told could not be kept: %s", error)

    @contextmanager
    def _database(self) -> Iterator[database.Connection]:
        with database.connect(self._runtime, "control") as connection:
            connection.execute(f"SET LOCAL statement_timeout = {ANSWER_MS}")
            yield connection


def airflow_is(runtime: Runtime) -> Airflow:
    """What is wanted of the components that the watchers run in, by what `./k2 up` and its supervisor wrote."""
    try:
        wanted = json.loads((runtime.run / "wanted.json").read_text()).get("services", [])
        phases = {name: facts.get("phase") for name, facts in json.loads((runtime.run / "stack.json").read_text())["services"].items()}
    except (OSError, ValueError, KeyError, AttributeError):
        # Without these files nobody has asked for a platform; a broken one is the supervisor's to tell.
        return Airflow.NOT_WANTED
    if not all(name in wanted for name in COMPONENTS):
        return Airflow.NOT_WANTED
    return Airflow.BEING_STOPPED if any(phases.get(name) in ENDING for name in COMPONENTS) else Airflow.WANTED


def _read(connection: database.Connection) -> Seen:
    rows = connection.execute("SELECT watcher, seen_at FROM k2.watchers WHERE watcher = ANY(%s) ORDER BY watcher", (list(WATCHERS),)).fetchall()
    return Seen({row["watcher"]: row["seen_at"].isoformat() for row in rows}, _open(connection))


def _open(connection: database.Connection) -> dict[str, Any] | None:
    return connection.execute("SELECT * FROM k2.incidents WHERE key = %s AND resolved_at IS NULL", (KEY,)).fetchone()


def _incident(why: str) -> dict[str, Any]:
    """A row of k2.incidents that no database holds."""
    now = datetime.now(UTC)
    fields = {"id": "not in the database", "key": KEY, "severity": "page", "title": TITLE, "detail": f"{why}\n{ADVICE}"}
    return fields | {"opened_at": now, "resolved_at": None, "resolution": None, "evidence": None, "message": None, "times": 1, "told_times": 0}
