"""`./k2 chaos` from beginning to end: a platform in a home of its own, the rounds of the plan, the proof."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from k2.chaos import memory, show
from k2.chaos.journal import Header, Journal, Result
from k2.chaos.place import Place
from k2.chaos.plan import Kind, Round, Subjects, plan
from k2.chaos.proof import Proof, prove
from k2.chaos.rounds import Rounds
from k2.demo.counts import Counter
from k2.demo.market import Market
from k2.registry.files import REGISTRY
from k2.registry.platform import Platform, load_platform
from k2.registry.runtime import Runtime
from k2.stack import control
from k2.stack.errors import K2Error
from k2.stack.home import Home
from k2.stack.progress import Progress

PROFILE = "demo"
CHECKPOINTS_MB = 256
FORGIVEN_MINUTES = 1
"""A run is weeks of faults in an hour: what a stream's deaths cost it must be over before its next one."""
SETTLE_SECONDS = 240.0
NEED_GROUPS = (Kind.SPARE_OOM, Kind.FEED_OOM, Kind.AGENT_OOM)
"""What rests may live on without new memory: only a control group, where one can be made, ends it for sure."""


@dataclass(frozen=True)
class Options:
    seed: int
    faults: int


def default_home() -> Path:
    """Beside the platform's own, so that neither disturbs the other."""
    own = Home.at().path
    return own.with_name(f"{own.name}-chaos")


def subjects(platform: Platform) -> Subjects:
    names = list(platform.streams)
    by_type = {kind: [name for name in names if platform.streams[name].type == kind] for kind in ("bronze", "silver")}
    return Subjects(names, by_type["silver"], by_type["bronze"], list(platform.exchanges))


class Run:
    """One run, new or resumed, in its home."""

    def __init__(self, home: Path, console: Console, progress: Progress) -> None:
        self._home, self._console, self._progress = home, console, progress
        self._journal = Journal(home)

    def begin(self, options: Options) -> Header:
        """Lay out the home of a new run. Raises K2Error while another run's home is there."""
        if self._home.exists():
            raise K2Error(f"{self._home} holds an earlier run: go on with it by ./k2 chaos --resume, or let it go by --discard")
        for folder in (self._home, self._home / "data", self._home / "data" / "checkpoints"):
            folder.mkdir(mode=0o755)
        without = [] if self._own_disk() else [Kind.DISK_FULL]
        if not memory.groups():
            without += NEED_GROUPS
        header = Header(options.seed, options.faults, tuple(kind.value for kind in without))
        self._journal.begin(header)
        return header

    def resume(self) -> tuple[Header, list[Result]]:
        """What the run in this home has done so far. Raises K2Error when there is none, or none that can go on."""
        header, results, finished = self._journal.read()
        if finished:
            raise K2Error(f"the run in {self._home} came to its end: start another one with ./k2 chaos --discard")
        if Kind.DISK_FULL.value not in header.without and not os.path.ismount(self._home / "data" / "checkpoints"):
            raise K2Error(f"the checkpoints of {self._home} were in memory and are gone: begin again with --discard --seed {header.seed}")
        return header, results

    def go(self, header: Header, done: list[Result]) -> bool:
        """Do the rounds that are left, then prove. True only if every round and the proof hold."""
        declared = yaml.safe_load(REGISTRY.read_text())
        declared["restart"]["forgiven_after"]["minutes"] = FORGIVEN_MINUTES
        (self._home / "platform.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
        os.environ["K2_PLATFORM"] = str(self._home / "platform.yaml")
        load_platform.cache_clear()
        platform = load_platform(PROFILE)
        found = subjects(platform)
        rounds = plan(header.seed, header.faults, found, frozenset(Kind(name) for name in header.without))
        results = list(done)
        try:
            runtime = control.up(self._home, profile=PROFILE, proxied=found.proxied, progress=self._progress)
            with closing(Rounds(Place(runtime), self._console.print)) as doing:
                self._rounds(doing, rounds, results)
            proof = self._prove(runtime)
        finally:
            report = control.down(self._home, progress=self._progress)
            self._console.print(show.table(results))
        if report.left:
            raise K2Error(f"processes {report.left} could not be ended: end them with kill -9")
        ok = self._tell(results, proof)
        self._journal.finish(ok)
        if ok:
            self._remove()
        else:
            self._console.print(f"Logs and state are kept in {self._home}. The same faults again: --seed {header.seed} --faults {header.faults} --discard")
        return ok

    def discard(self) -> None:
        """Stop what an earlier run left behind, and remove it."""
        if self._home.exists():
            control.down(self._home, progress=self._progress)
            self._remove()

    def _remove(self) -> None:
        checkpoints = self._home / "data" / "checkpoints"
        if os.path.ismount(checkpoints):
            subprocess.run(["umount", str(checkpoints)], check=True)
        shutil.rmtree(self._home)

    def _own_disk(self) -> bool:
        """Put the checkpoints on a disk of their own that can be filled. False where this user may not."""
        folder = self._home / "data" / "checkpoints"
        if os.geteuid() != 0 or shutil.which("mount") is None:
            return False
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={CHECKPOINTS_MB}m,mode=755", "k2-chaos", str(folder)], capture_output=True, check=False)
        return done.returncode == 0

    def _rounds(self, doing: Rounds, rounds: Sequence[Round], results: list[Result]) -> None:
        for number, planned in enumerate(rounds, 1):
            if number <= len(results):
                continue
            doing.wait_until_well()
            result = doing.run(number, planned)
            results.append(result)
            self._journal.add(result)
            self._console.print(show.line(result))

    def _prove(self, runtime: Runtime) -> Proof:
        Market(runtime).pause()
        with closing(Counter(runtime, runtime.platform)) as counter:
            deadline = time.monotonic() + SETTLE_SECONDS
            while not counter.read().settled(runtime.platform) and time.monotonic() < deadline:
                time.sleep(1)
        self._progress.now("reading every record of Kafka, Bronze, Silver and the DLQ")
        return prove(runtime, SETTLE_SECONDS)

    def _tell(self, results: Sequence[Result], proof: Proof) -> bool:
        for part in show.proof(proof):
            self._console.print(part)
        self._console.print(show.summary(results, proof), soft_wrap=True)
        return show.holds(results, proof)
