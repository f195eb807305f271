"""The one shape of every benchmark's result."""

from __future__ import annotations

import json

import pytest

from k2.bench.report import Figure, Report, machine


def test_figure_is_the_median_against_the_rival_s() -> None:
    """Ratio is ours / rival, so smaller is better."""
    figure = Figure.of("slowest dag file", [30.0, 10.0, 20.0], "ms", rival="an empty file", rival_samples=[5.0, 10.0, 40.0])
    assert (figure.value, figure.rival_value, figure.ratio, figure.samples) == (20.0, 10.0, 2.0, (30.0, 10.0, 20.0))


def test_figure_without_rival_or_samples() -> None:
    """A rival is optional, samples are not."""
    assert Figure.of("x", [1.0], "s").ratio is None
    with pytest.raises(ValueError, match="has no samples"):
        Figure.of("x", [], "s")


def test_json_has_the_agreed_keys() -> None:
    """The same for every benchmark."""
    report = Report("parse", machine(), (Figure.of("x", [1.0, 3.0], "s", rival="y", rival_samples=[4.0]),))
    read = json.loads(report.to_json())
    assert set(read) == {"name", "machine", "figures"} and read["name"] == "parse" and "cores" in read["machine"]
    assert read["figures"] == [{"what": "x", "value": 2.0, "unit": "s", "rival": "y", "rival_value": 4.0, "ratio": 0.5, "samples": [1.0, 3.0]}]


def test_table_is_aligned() -> None:
    """Every row has its columns where the header has them."""
    lines = Report("n", "m", (Figure.of("short", [1234.5], "ms"), Figure.of("a longer name", [1.0], "ms", rival="r", rival_samples=[2.0]))).table().splitlines()
    assert lines[0] == "n on m" and "1,234.50" in lines[3]
    assert {line.index("ms") for line in lines[3:]} == {lines[2].index("unit")}
