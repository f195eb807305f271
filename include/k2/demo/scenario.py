"""The demo from beginning to end: platform up, trades flowing, drivers killed, and the proof.

Every wait has a deadline, and a deadline that passes is a failed demo that says what did not happen.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live

from k2.demo import show
from k2.demo.counts import Counter, Counts
from k2.demo.kills import Kill, Recovery, kill_driver, recoveries
from k2.demo.market import Market
from k2.feeds.received import audit_exchange, audit_silver
from k2.reconcile import table
from k2.reconcile.read import reconcile
from k2.registry.platform import Layer, Platform
from k2.registry.runtime import Runtime
from k2.stack.errors import K2Error
from k2.state.database import connect

REFRESH_SECONDS = 1.0
FLOWING_TIMEOUT = 600.0
RECOVERY_TIMEOUT = 300.0
SETTLE_TIMEOUT = 180.0
REPLAY_TIMEOUT = 6 * 3600.0


@dataclass(frozen=True)
class Options:
    kills: int = 1
    seed: int | None = None


class Demo:
    """One run of the demo on a platform that is up."""

    def __init__(self, runtime: Runtime, console: Console, options: Options) -> None:
        self._runtime, self._console, self._options = runtime, console, options
        self._platform: Platform = runtime.platform
        self._market = Market(runtime)
        self._random = random.Random(options.seed)
        self._counter = Counter(runtime, self._platform)
        self._began = time.monotonic()

    def close(self) -> None:
        self._counter.close()

    def run(self) -> bool:
        """True only if the reconciliation holds. Raises K2Error when a driver does not come back."""
        self._market.resume()
        before = self._counter.read()
        self._watch("new trades in Silver of every exchange", FLOWING_TIMEOUT, lambda counts: self._flow(before, counts))
        self._kill_and_wait()
        if self._runtime.replay:
            self._watch("the recordings to end", REPLAY_TIMEOUT, lambda _: self._market.finished())
        self._market.pause()
        # To read every record earlier would find streams at work.
        self._wait(SETTLE_TIMEOUT, lambda counts: counts.settled(self._platform))
        with self._console.status("reading every record of Kafka, Bronze, Silver and the DLQ"):
            results = reconcile(self._runtime, self._platform, SETTLE_TIMEOUT)
            silver = {e: audit_silver(self._runtime, e) for e in self._platform.exchanges}
            # What Silver has, Kafka has: only an exchange that lacks something is looked at again.
            kafka = {e: audit_exchange(self._runtime, e) if found.missing else found for e, found in silver.items()}
        self._console.print(table.table(results))
        self._console.print(show.gaps({e: found.gaps for e, found in kafka.items()}))
        self._console.print(show.content(silver, kafka))
        self._console.print(table.summary(results))
        return table.holds(results) and all(show.is_true_copy(silver[e], kafka[e]) for e in silver)

    def _flow(self, before: Counts, counts: Counts) -> bool:
        def silver(of: Counts, exchange: str) -> int:
            return of.of(self._platform, exchange, Layer.SILVER)

        return all(silver(counts, exchange) > silver(before, exchange) for exchange in self._platform.exchanges)

    def _kill_and_wait(self) -> None:
        kills: list[Kill] = []
        for number in range(self._options.kills):
            if number:
                self._pause(self._random.uniform(1, 10))
            kill = self._kill_one()
            kills.append(kill)
            pids = ", ".join(map(str, kill.pids))
            self._console.print(f"[bold red]kill -9 {pids}[/]  the driver of [bold]{kill.stream}[/] (fence {kill.fence})")
        try:
            self._watch("the killed drivers to commit again", RECOVERY_TIMEOUT, lambda _: self._recovered(kills))
        finally:
            self._console.print(show.recovery(recoveries(self._runtime, kills)))

    def _kill_one(self) -> Kill:
        """Kill a random living driver; one that has just been killed may have to come back first."""
        deadline = time.monotonic() + RECOVERY_TIMEOUT
        while time.monotonic() < deadline:
            for stream in self._random.sample(sorted(self._platform.streams), len(self._platform.streams)):
                if (kill := kill_driver(self._runtime, stream)) is not None:
                    return kill
            time.sleep(0.5)
        raise K2Error(f"no driver was alive to be killed within {RECOVERY_TIMEOUT:.0f} s: look at ./k2 status and ./k2 logs airflow_scheduler")

    def _recovered(self, kills: Sequence[Kill]) -> bool:
        """Whether each killed stream commits again, or is idle because all that there is was committed before.

        A later kill of the same stream makes an earlier one's first commit impossible: the newest one counts.
        """
        newest = {kill.stream: kill for kill in kills}
        latest: list[Recovery] = recoveries(self._runtime, newest.values())
        return all(r.first_commit is not None or (r.launched is not None and self._idle_since(r.kill)) for r in latest)

    def _idle_since(self, kill: Kill) -> bool:
        with connect(self._runtime, "reader") as connection:
            row = connection.execute("SELECT 1 FROM k2.verdicts WHERE stream = %s AND verdict = 'IDLE' AND since > %s", (kill.stream, kill.at)).fetchone()
        return row is not None

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._watch("", seconds + 5, lambda _: time.monotonic() > end)

    def _verdicts(self) -> dict[str, str]:
        with connect(self._runtime, "reader") as connection:
            rows = connection.execute("SELECT stream, verdict, seen_at FROM k2.verdicts").fetchall()
        now = datetime.now(UTC)
        return {r["stream"]: r["verdict"] if (now - r["seen_at"]).total_seconds() < 60 else "not looked at" for r in rows}

    def _watch(self, what: str, timeout: float, done: Callable[[Counts], bool]) -> None:
        """Show the counts until `done`. Raises K2Error past the deadline."""
        if not self._wait(timeout, done):
            raise K2Error(f"waited {timeout:.0f} s for {what}, in vain: look at ./k2 status and ./k2 logs NAME")

    def _wait(self, timeout: float, done: Callable[[Counts], bool]) -> bool:
        """Show the counts until `done`, or until the deadline. Returns whether it was done."""
        deadline, said = time.monotonic() + timeout, 0.0
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                counts = self._counter.read()
                if self._console.is_terminal:
                    live.update(show.live(self._platform, counts, self._verdicts(), time.monotonic() - self._began), refresh=True)
                elif time.monotonic() - said > 5:
                    said = time.monotonic()
                    self._console.print(f"{said - self._began:6.1f} s  {show.live_line(self._platform, counts)}", soft_wrap=True)
                if done(counts):
                    return True
                if time.monotonic() > deadline:
                    return False
                time.sleep(REFRESH_SECONDS)
