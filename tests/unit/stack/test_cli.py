"""The command line: help for all, one sentence for mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k2.registry.files import REGISTRY
from k2.registry.platform import load_platform
from k2.stack import cli
from k2.stack.commands import logs
from k2.stack.commands.status import render
from k2.stack.errors import K2Error
from k2.stack.home import Home
from k2.stack.status import PlatformStatus, ServiceStatus, StreamStatus, read_status


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that is the registry meanwhile, not written yet."""
    file = tmp_path / "platform.yaml"
    monkeypatch.setenv("K2_PLATFORM", str(file))
    load_platform.cache_clear()
    yield file
    load_platform.cache_clear()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help prints the module's docstring and exits with 0."""
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])
    assert left.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) >= 5


def test_a_mistake_in_the_registry_is_exit_2_without_a_traceback(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`config` names the file, the field and the fix."""
    registry.write_text("catalogue: {}\n")
    assert cli.main(["config"]) == 2
    said = capsys.readouterr().err
    assert "platform.yaml: catalogue: unknown key: did you mean 'catalog'?" in said
    assert "Traceback" not in said


def test_a_decoder_that_is_not_written_yet_is_named(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its stream would end with 78 at each start."""
    registry.write_text(REGISTRY.read_text().replace("decoder: kraken", "decoder: coinbase"))
    assert cli.main(["config"]) == 2
    assert "exchanges.kraken.decoder: spark_jobs/decoders/coinbase.py does not exist" in capsys.readouterr().err


def test_status_of_nothing_says_how_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, and the command to type."""
    monkeypatch.setenv("K2_HOME", str(tmp_path / "home"))
    assert cli.main(["status"]) == 1
    assert "./k2 up" in capsys.readouterr().out


def test_down_of_nothing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It says that nothing was running and makes no folder."""
    monkeypatch.setenv("K2_HOME", str(tmp_path / "home"))
    assert cli.main(["down"]) == 0
    assert "Nothing was running" in capsys.readouterr().out
    assert not (tmp_path / "home").exists()


def test_an_empty_home_has_a_status(tmp_path: Path) -> None:
    """Looking makes nothing."""
    assert read_status(Home(tmp_path / "home")) == PlatformStatus(home=tmp_path / "home", running=False, supervised=False)


def test_a_process_over_its_budget_stands_out(tmp_path: Path) -> None:
    """Use and budget are shown together, in red when the budget is exceeded."""
    from rich.console import Console

    def shown(used: float) -> str:
        service = ServiceStatus("kafka", "healthy", 1, 10, 0, used, 900, "")
        console = Console(width=120, record=True, force_terminal=True, file=(tmp_path / "out").open("w"))
        console.print(render(PlatformStatus(home=tmp_path, running=True, supervised=True, services=[service])))
        return console.export_text(styles=True)

    assert "\x1b[31m901 of 900" in shown(901)
    assert "899 of 900" in shown(899)
    assert "\x1b[31m899" not in shown(899)


def test_an_old_verdict_is_shown_with_its_age(tmp_path: Path) -> None:
    """Whoever reads it while nobody looks at the streams must not take it for what is."""
    from rich.console import Console

    def shown(seconds: float) -> str:
        seen_at = datetime.now(UTC) - timedelta(seconds=seconds)
        stream = StreamStatus("bronze_kraken", "IDLE", seen_at, seen_at, "", 7, None, 500.0, 1300)
        console = Console(width=160, record=True, file=(tmp_path / "out").open("w"))
        console.print(render(PlatformStatus(home=tmp_path, running=True, supervised=True, streams=[stream])))
        return console.export_text()

    assert "IDLE 10 min ago" in shown(600)
    assert " ago" not in shown(100)


def test_open_incidents_come_with_what_to_do(tmp_path: Path) -> None:
    """As in the channel: what was found beside, and the advice of their kind, unless their detail has one."""
    from rich.console import Console

    incident = {
        "key": "held:silver_kraken",
        "severity": "page",
        "title": "Stream silver_kraken lost its place",
        "opened_at": datetime.now(UTC),
        "detail": "REWIND",
        "evidence": "Others that died within a minute: silver_binance",
    }
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(render(PlatformStatus(home=tmp_path, running=True, supervised=True, incidents=[incident])))
    shown = console.export_text()
    assert "What to do: decide." in shown and "within a minute: silver_binance" in shown


def test_the_newest_driver_log_of_a_stream_is_found(tmp_path: Path) -> None:
    """The highest fence wins; a service's own log comes before that."""
    for fence in (1, 2, 10):
        path = tmp_path / "drivers" / "bronze_kraken" / f"{fence:06}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "kafka.log").touch()
    assert logs.find_log(tmp_path, "bronze_kraken").name == "000010.log"
    assert logs.find_log(tmp_path, "kafka") == tmp_path / "kafka.log"


def test_the_log_of_a_driver_that_died_is_found_by_its_fence(tmp_path: Path) -> None:
    """One that is not kept is refused with those that are."""
    for fence in (1, 2, 10):
        path = tmp_path / "drivers" / "bronze_kraken" / f"{fence:06}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert logs.driver_log(tmp_path, "bronze_kraken", 2).name == "000002.log"
    with pytest.raises(K2Error, match="fence 3: kept are those of 1, 2, 10"):
        logs.driver_log(tmp_path, "bronze_kraken", 3)
    with pytest.raises(K2Error, match="none is kept"):
        logs.driver_log(tmp_path, "../bronze_krakem", 1)


@pytest.mark.parametrize("name", ["kafak", "../secrets/postgres_admin"])
def test_an_unknown_log_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    """A name is a name, never a path."""
    (tmp_path / "kafka.log").touch()
    with pytest.raises(K2Error, match="use one of kafka"):
        logs.find_log(tmp_path, name)
