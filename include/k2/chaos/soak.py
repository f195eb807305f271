"""`./k2 soak`: constant load for hours, and what grows under it; or hours without a trade, and what is restarted then."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from k2.chaos import growth
from k2.chaos.place import NothingToHurt, Place
from k2.chaos.sampling import Sampler, Samples
from k2.chaos.slow import slow_batch
from k2.chaos.watching import Watching
from k2.demo.market import Market
from k2.registry.runtime import Runtime
from k2.stack import control
from k2.stack.errors import K2Error
from k2.stack.progress import Progress
from k2.stack.temporary import temporary_home

EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class Options:
    hours: float
    profile: str = "standard"
    idle: bool = False
    """The market is paused for all the time."""
    slow: str | None = None
    """A stream, one of whose batches is made to take five times its trigger."""


@dataclass(frozen=True)
class Outcome:
    samples: Samples
    slow_seconds: float | None
    """What the slow batch took."""

    @property
    def restarts(self) -> int:
        return growth.restarts(self.samples.first_fences, self.samples.fences)


def soak(options: Options, progress: Progress) -> Outcome:
    """Bring up a platform of its own, load it, sample it, stop it. Ctrl-C ends the load; what was read until then is the outcome."""
    with temporary_home("soak", progress=progress) as home:
        return _loaded(control.up(home, profile=options.profile, progress=progress), options, progress)


def _loaded(runtime: Runtime, options: Options, progress: Progress) -> Outcome:
    place = Place(runtime)
    with closing(Watching(place)) as watching:
        watching.wait_until_well()
    if options.idle:
        Market(runtime).pause()
        time.sleep(max(s.trigger_seconds for s in runtime.platform.streams.values()))
    sampler, slow_seconds = Sampler(runtime), None
    ends = time.monotonic() + options.hours * 3600
    try:
        sampler.sample()
        if options.slow:
            slow_seconds = _slowed(place, options.slow, progress)
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(EVERY_SECONDS, left))
            sampler.sample()
            progress.now(f"{sampler.samples.hours * 60:.0f} of {options.hours * 60:.0f} minutes")
    except KeyboardInterrupt:
        progress.say("interrupted: this is what was read until now")
    return Outcome(sampler.samples, slow_seconds)


def _slowed(place: Place, stream: str, progress: Progress) -> float:
    try:
        return slow_batch(place, stream, progress.say)
    except (TimeoutError, NothingToHurt) as error:
        raise K2Error(f"--slow-batch {stream}: {error}") from None


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Everything that was read and what follows from it, for a file."""
    samples = outcome.samples
    lines = {"memory MiB": samples.memory_mb, "files": samples.files, "MiB on disk": samples.mib, "lag rows": samples.lag_rows}
    return {
        "hours": samples.hours,
        "restarts": outcome.restarts,
        "slow batch seconds": outcome.slow_seconds,
        "verdicts": dict(samples.verdicts),
        "slopes per hour": {what: {name: _line(growth.warm(found)) for name, found in series.items()} for what, series in lines.items()},
        "commit seconds": {name: vars(found) if (found := growth.commits(of)) else None for name, of in samples.commit_seconds.items()},
        "samples": {**lines, "commit seconds": samples.commit_seconds},
    }


def _line(samples: list[tuple[float, float]]) -> dict[str, float] | None:
    found = growth.slope(samples)
    return {"slope": found.per_hour, "error": found.error} if found else None
