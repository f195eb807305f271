"""One round after the other on a platform that is up: hurt, see it found, heal, see every stream commit again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import psycopg

from k2.chaos.faults import FAULTS, Violated
from k2.chaos.journal import Result
from k2.chaos.place import NothingToHurt, Place, until
from k2.chaos.plan import Fault, Round
from k2.chaos.watching import Watching
from k2.launchers.client import AgentRefused, AgentUnavailable
from k2.state.database import StateUnavailable
from k2.state.streams import LostRace

FAILED = (Violated, AgentUnavailable, AgentRefused, StateUnavailable, LostRace, psycopg.Error, httpx.HTTPError, OSError)


class Rounds:
    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self._place, self._say = place, say
        self._watching = Watching(place)

    def close(self) -> None:
        self._watching.close()

    def wait_until_well(self) -> None:
        """Every service healthy and every stream committing. Raises K2Error with what is not."""
        self._watching.wait_until_well()

    def run(self, number: int, planned: Round) -> Result:
        """Do one round. Its result says what failed, it raises nothing for that."""
        time.sleep(planned.pause_seconds)
        names = " and ".join(f"{fault.kind}: {fault.target}" for fault in planned.faults)
        self._say(f"{number:3d}  {names}")
        began, started = self._watching.begin(), time.monotonic()
        trouble, skipped, hurt = "", False, list[tuple[str, datetime]]()
        with ThreadPoolExecutor(len(planned.faults)) as pool, self._held() as over:
            for doing in [pool.submit(self._do, fault, over) for fault in planned.faults]:
                try:
                    hurt.append(doing.result())
                except NothingToHurt as error:
                    hurt.append((str(error), began))
                    skipped = True
                except FAILED as error:
                    trouble = f"{type(error).__name__}: {error}"
        healed_at = datetime.now(UTC)
        if hurt and all(fault.rule.waits for fault in planned.faults):
            waited = min(at for _, at in hurt) - began
            began, started = began + waited, started + waited.total_seconds()
        limit = max(fault.rule.limit_seconds for fault in planned.faults)
        replaced = {fault.target for fault in planned.faults if fault.rule.new_driver and not skipped}
        ill = self._back(healed_at, limit, replaced, any(fault.rule.pool for fault in planned.faults))
        recovered = None if ill else time.monotonic() - started
        trouble = trouble or (f"not back within {limit:.0f} s: {ill}" if ill else "")
        signs = self._watching.signs()
        sign = signs[0] if signs else None
        return Result(
            number=number,
            kinds=tuple(fault.kind for fault in planned.faults),
            targets=tuple(fault.target for fault in planned.faults),
            did="; ".join(words for words, _ in hurt),
            detected=None if sign is None else round(max(0.0, (sign.at - began).total_seconds()), 1),
            detected_as="" if sign is None else f"{sign.subject} {sign.what}",
            recovered=None if recovered is None else round(recovered, 1),
            how=self._ways(),
            hangs=() if skipped or trouble else self._hangs(planned.faults, [at for _, at in hurt]),
            trouble=trouble,
            skipped=skipped,
        )

    @staticmethod
    @contextmanager
    def _held() -> Iterator[threading.Event]:
        """An event that ends what is held, set on leaving: an interruption heals at once."""
        over = threading.Event()
        try:
            yield over
        finally:
            over.set()

    def _do(self, fault: Fault, over: threading.Event) -> tuple[str, datetime]:
        """One fault from its beginning until it is healed. Returns what was done, and when."""
        with FAULTS[fault.kind](self._place, fault.target) as did:
            at = datetime.now(UTC)
            if fault.rule.until_found:
                until(lambda: over.is_set() or self._watching.raised(fault.target), fault.rule.lasts_seconds)
            else:
                over.wait(fault.rule.lasts_seconds)
        return did, at

    def _hangs(self, faults: Sequence[Fault], moments: Sequence[datetime]) -> tuple[tuple[str, str, float], ...]:
        found = [(fault.target, self._watching.hung(fault.target), at) for fault, at in zip(faults, moments, strict=True) if fault.rule.until_found]
        return tuple((stream, sign.what, round((sign.at - at).total_seconds(), 1)) for stream, sign, at in found if sign)

    def _back(self, over: datetime, limit: float, replaced: set[str], pool: bool) -> str:
        """What is still ill when the limit has passed; empty as soon as nothing is, these streams have new drivers and `pool`'s spares are warm."""
        deadline = time.monotonic() + limit
        while True:
            old = sorted(stream for stream in replaced if not self._watching.raised(stream))
            ill = f"{', '.join(old)} has no new driver" if old else self._watching.ill(over) or (self._watching.cold() if pool else "")
            if not ill or time.monotonic() > deadline:
                return ill
            time.sleep(0.25)

    def _ways(self) -> str:
        try:
            return self._watching.ways()
        except (StateUnavailable, psycopg.Error) as error:
            return f"unknown: {error}".splitlines()[0]
