"""The exchange of a checkpoint for one that is made again, and what is told of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from k2.checkpoints.entries import entries
from k2.checkpoints.quarantine import quarantine_of
from k2.checkpoints.rebuild_files import files_of
from k2.checkpoints.rebuild_plan import Begin, BronzePlan, Place, SilverPlan
from k2.launchers.rebuilding import begins_after, loses_more, replace, told
from k2.launchers.retention import NotKnown

SILVER = SilverPlan("s", 7, datetime(2026, 1, 1, tzinfo=UTC), Place(1, 0), Place(2, 0), (5, 5, 0), 0)


def bronze(lost: tuple[int, int] | None = None) -> BronzePlan:
    return BronzePlan("t", "b", (Begin("0", lost[1] if lost else 10, (0, 50), (0, 10), lost),), 1, 0, None)


def test_whoever_approves_is_told_what_it_does() -> None:
    """The plan in its own words, what is lost, and the query that it will be."""
    assert told(bronze((10, 12))) == {"sentence": bronze((10, 12)).sentence().rstrip("."), "lost": {"0": [10, 12]}, "query": "b"}
    assert told(SILVER)["lost"] == {} and told(SILVER)["query"] == "s"


def test_less_than_was_told_may_be_lost_and_no_more() -> None:
    """Whether nothing was told, or not enough."""
    assert not loses_more(told(bronze((10, 12))), bronze()) and not loses_more(told(bronze((10, 12))), bronze((10, 12)))
    assert not loses_more(told(bronze()), bronze()) and not loses_more(told(SILVER), SILVER)
    assert loses_more(told(bronze()), bronze((10, 12))) and loses_more(told(bronze((10, 12))), bronze((10, 13)))


def test_a_start_from_it_begins_behind_what_it_has_committed() -> None:
    """Nothing of a new query, all but the newest batch of Silver's."""
    assert [begins_after(made) for made in (bronze(), SILVER, SilverPlan("s", 0, SILVER.at, SILVER.begin, SILVER.end, SILVER.rows, 0))] == [None, 6, None]


@pytest.mark.parametrize("made", [bronze(), SILVER])
def test_what_is_there_already_stays(made: BronzePlan | SilverPlan, tmp_path: Path) -> None:
    """After a start that was interrupted; a file more, or another byte, is of somebody else and goes into the quarantine."""
    place = tmp_path / "checkpoints" / "x"
    place.parent.mkdir()
    replace(made, place, 6)
    replace(made, place, 7)
    assert entries(quarantine_of(place.parent)) == []
    (place / "commits").mkdir(exist_ok=True)
    (place / "commits" / "99").write_text("v1\n{}")
    replace(made, place, 8)
    (place / "metadata").write_text("{}")
    replace(made, place, 9)
    assert sorted(e.manifest.about["fence"] for e in entries(quarantine_of(place.parent)) if e.manifest) == [8, 9]
    assert {str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file()} == files_of(made)


def test_what_cannot_be_put_away_stays_and_is_told(tmp_path: Path) -> None:
    """A link to a checkpoint that lies elsewhere: nothing is written through it."""
    root = tmp_path / "checkpoints"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotKnown, match="is a symbolic link"):
        replace(bronze(), root / "x", 6)
    assert list((tmp_path / "elsewhere").iterdir()) == []
