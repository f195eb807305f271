"""What the files of a checkpoint say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.checkpoints import contents
from k2.checkpoints.contents import Malformed, SourceKind, UnknownFormat

ABOUT = '{"batchWatermarkMs":0,"batchTimestampMs":1796057667159,"conf":{"spark.sql.shuffle.partitions":"2"}}'
ICEBERG = {"version": 1, "snapshot_id": 5214687884514373566, "position": 1, "scan_all_files": False}


def test_a_plan() -> None:
    """An offset for each source."""
    text = f'v1\n{ABOUT}\n{{"trades":{{"0":2}}}}\n-\n7'
    contents.check_plan(text, "offsets/3")
    assert contents.offsets(text, "offsets/3") == ({"trades": {"0": 2}}, None, 7)


@pytest.mark.parametrize("text", [f"v1\n{ABOUT}", "v1\nx\n7", "v1\n7\n7", f"v1\n{ABOUT}\nx", f"v2\n{ABOUT}\n7"])
def test_a_plan_of_another_form_is_refused(text: str) -> None:
    """Its metadata and its offsets alike."""
    with pytest.raises(Malformed, match="offsets/3"):
        contents.check_plan(text, "offsets/3")


@pytest.mark.parametrize(
    ("offset", "kind"),
    [
        ({"trades": {"0": 2, "1": 0}, "quiet": {"0": 0}}, SourceKind.KAFKA),
        (ICEBERG, SourceKind.ICEBERG),
        ({"logOffset": 0}, SourceKind.FILES),
        (0, SourceKind.RATE),
        ({"offset": 3, "timestamp": 1000}, SourceKind.RATE_MICRO_BATCH),
    ],
)
def test_each_source_is_told_by_its_offset(offset: Any, kind: SourceKind) -> None:
    """No file names the source: its offset does."""
    assert contents.kind(offset) is kind


@pytest.mark.parametrize("offset", [{}, True, "x", {"trades": [1]}, {"trades": {"0": "2"}}, ICEBERG | {"version": 2}])
def test_an_unknown_source_is_refused(offset: Any) -> None:
    """It may be right; nothing may be concluded from it."""
    with pytest.raises(UnknownFormat):
        contents.kind(offset)


@pytest.mark.parametrize(
    ("text", "begun"),
    [
        ('\0v1\n{"trades":{"0":0}}', {"trades": {"0": 0}}),
        ('{"version":1,"snapshot_id":7,"position":0,"scan_all_files":false}', {"version": 1, "snapshot_id": 7, "position": 0, "scan_all_files": False}),
        ("v1\n1796057667159", 1796057667159),
    ],
)
def test_where_a_query_began(text: str, begun: Any) -> None:
    """Kafka's file has a zero byte first, Iceberg's no version, that of rate a number."""
    assert contents.start(text, "sources/0/0") == begun


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("v2\n{}", UnknownFormat),
        ("v10\n{}", UnknownFormat),
        ("", Malformed),
        ("v1", Malformed),
        ("v1\n{}\n{}", Malformed),
        ("v1\nx", Malformed),
        ("v1\n7", Malformed),
    ],
)
def test_a_commit_of_another_form_is_refused(text: str, refused: type[Malformed]) -> None:
    """A newer format may be right; half a file is not."""
    with pytest.raises(Malformed) as found:
        contents.commit(text, "commits/1")
    assert type(found.value) is refused and "commits/1" in str(found.value)


def test_a_file_log() -> None:
    """One object a line."""
    assert contents.file_log('v1\n{"path":"a","batchId":0}\n{"path":"b","batchId":0}', "sources/0/0") == [
        {"path": "a", "batchId": 0},
        {"path": "b", "batchId": 0},
    ]


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    """Any text ends in a value or in Malformed."""
    for parse in (contents.check_plan, contents.offsets, contents.commit, contents.start, contents.file_log):
        for full in (text, f"v1\n{text}", f"v1\n{ABOUT}\n{text}"):
            try:
                parse(full, "a file")
            except Malformed as refused:
                assert str(refused)
