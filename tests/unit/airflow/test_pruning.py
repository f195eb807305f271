"""What a pruning asks, plans and tells, by values alone."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType

from k2.airflow.pruning import changes, incomplete, purge, unusual, would_take
from k2.airflow.pruning_tasks import acts, pulled
from k2.checkpoints import quarantine
from k2.checkpoints.doctor import Finding, Health
from k2.checkpoints.examine import Examination
from k2.checkpoints.manifest import Kind, Why

NOW = datetime(2026, 11, 30, 2, 30, tzinfo=UTC)


def planned(**plan: Any) -> dict[str, Any]:
    return {"folder": "a", "health": "growing", "plan": {"files": 5, "bytes": 50, "refused": None, "unusual": None} | plan}


def found(health: Health, stream: str | None = "bronze_binance") -> Examination:
    finding = Finding(health, "metadata is missing", "it would start anew", "put it back")
    return Examination("a", stream, exists=True, health=health, findings=() if health is Health.HEALTHY else (finding,))


@pytest.mark.parametrize(
    ("health", "stream", "severity"),
    [
        (Health.DAMAGED, "bronze_binance", "page"),
        (Health.DAMAGED, None, "ticket"),
        (Health.BREAKING, "bronze_binance", "ticket"),
        (Health.UNKNOWN, "bronze_binance", "ticket"),
        (Health.GROWING, "bronze_binance", None),
        (Health.HEALTHY, "bronze_binance", None),
    ],
)
def test_who_is_told_of_what(health: Health, stream: str | None, severity: str | None) -> None:
    """A damaged checkpoint of a stream pages; the message says what to do."""
    opened = changes([found(health, stream)], (), ())
    assert [change.severity for change in opened] == [severity] * bool(severity)
    if severity:
        assert opened[0].title.endswith(str(health)) and "What to do: put it back" in opened[0].text


def test_what_gets_worse_is_told_anew() -> None:
    """A page of its own, and the ticket is over; so is what is well or there no more."""
    ticket = changes([found(Health.BREAKING)], (), ())[0].key
    worse = changes([found(Health.DAMAGED)], (), [ticket, "checkpoint:gone::ticket"])
    assert [(change.severity, change.text[:9]) for change in worse] == [("page", "damaged: "), (None, "it is dam"), (None, "it is the")]
    assert [(c.key, c.severity) for c in changes([found(Health.HEALTHY)], (), [ticket])] == [(ticket, None)]


def test_one_cause_is_one_incident() -> None:
    """What the watchdog holds a stream for it tells itself; other damage of a held stream is told here, and what does not answer nowhere here."""
    rewound = Finding(Health.DAMAGED, "it ends before", "it is held", "adopt", told=True)
    silent = Finding(Health.UNKNOWN, "Kafka did not answer", "cannot be told", "bring it back", told=True)
    lost = Finding(Health.DAMAGED, "metadata is missing", "it would start anew", "put it back")

    def severities(*findings: Finding, held: bool) -> list[str | None]:
        examined = Examination("a", "s", exists=True, health=findings[0].health, findings=findings)
        return [change.severity for change in changes([examined], {"s"} if held else (), ())]

    assert severities(rewound, held=True) == [] and severities(rewound, held=False) == ["page"], "of a stream that is stopped nobody else tells"
    assert severities(rewound, lost, held=True) == ["page"]
    assert severities(silent, held=False) == severities(silent, held=True) == []


@pytest.mark.parametrize("results", [[], [{"folder": "a"}], [{"folder": "a"}, None, {"folder": "b"}]])
def test_results_of_instances_are_a_list(results: list[Any]) -> None:
    """However many there are: Airflow gives one alone as itself when it is asked for by a name that is no list."""
    ti = SimpleNamespace(xcom_pull=lambda task_ids: results if isinstance(task_ids, list) else results[0])
    assert pulled({"ti": ti}, "examine") == [result for result in results if result]


@pytest.mark.parametrize(
    ("folders", "wrong"), [(["a"], None), (["a", "b", "c"], "examine or take_away failed for b, c"), (None, "discover failed"), ([], None)]
)
def test_a_part_that_failed_fails_the_run(folders: list[str] | None, wrong: str | None) -> None:
    """Whatever came through is told all the same."""
    said = incomplete(folders, [{"folder": "a"}] if folders else [])
    assert (said is None) if wrong is None else (said or "").startswith(wrong)


def test_what_needs_a_person() -> None:
    """Only what would really be done is asked."""
    many = "900 of its 1,000 files are leftovers"
    assert unusual([planned(), planned(unusual=many), planned(unusual=many, refused="it is damaged"), {"folder": "b", "plan": None}]) == [f"a: {many}"]


@pytest.mark.parametrize(
    ("plan", "files", "why"),
    [
        (planned(), 5, ""),
        (planned(refused="it is damaged"), 0, "it is damaged"),
        (planned(files=0), 0, "nothing is left over"),
        ({"folder": "a", "plan": None}, 0, "nothing is left over"),
    ],
)
def test_a_dry_run_says_what_would_go(plan: dict[str, Any], files: int, why: str) -> None:
    """And why not."""
    assert (would_take(plan)["files"], would_take(plan)["why"]) == (files, why)


@pytest.mark.parametrize(
    ("run_type", "dry_run", "does"), [(DagRunType.SCHEDULED, True, True), (DagRunType.MANUAL, True, False), (DagRunType.MANUAL, False, True)]
)
def test_only_the_night_acts_by_itself(run_type: DagRunType, dry_run: bool, does: bool) -> None:
    """A run by hand is a dry run unless its form says otherwise. The run type is as a running task gets it."""
    assert acts({"dag_run": SimpleNamespace(run_type=run_type), "params": {"dry_run": dry_run}}) is does


def test_only_what_has_lain_for_its_time_is_deleted(tmp_path: Path) -> None:
    """A dry run says so and deletes nothing; what somebody works on stays; a young entry stays whatever happens."""
    checkpoints = tmp_path / "checkpoints"
    runtime: Any = SimpleNamespace(checkpoints=checkpoints, home=tmp_path, platform=SimpleNamespace(checkpoints=SimpleNamespace(quarantine_days=30)))
    names = {}
    for name, days in (("old", 31), ("held", 31), ("young", 29)):
        (checkpoints / name / "sources").mkdir(parents=True)
        why = Why(kind=Kind.ADOPTED, who="watchdog", why="adopted", at=NOW - timedelta(days=days))
        names[name] = quarantine.put(checkpoints / name, checkpoints, why).folder
    assert purge(runtime, NOW, dry_run=True) == sorted([names["held"].name, names["old"].name])
    descriptor = os.open(names["held"], os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert purge(runtime, NOW, dry_run=False) == [names["old"].name]
    finally:
        os.close(descriptor)
    assert [folder.exists() for folder in names.values()] == [False, True, True]


def test_old_plans_are_forgotten(tmp_path: Path) -> None:
    """They are of no use once the quarantine has let go of what they took."""
    runtime: Any = SimpleNamespace(
        checkpoints=tmp_path / "checkpoints", home=tmp_path, platform=SimpleNamespace(checkpoints=SimpleNamespace(quarantine_days=30))
    )
    for name, days in (("old", 31), ("young", 29)):
        folder = tmp_path / "plans" / "checkpoints" / name
        folder.mkdir(parents=True)
        os.utime(folder, ((NOW - timedelta(days=days)).timestamp(),) * 2)
    purge(runtime, NOW, dry_run=False)
    assert [folder.name for folder in (tmp_path / "plans" / "checkpoints").iterdir()] == ["young"]
