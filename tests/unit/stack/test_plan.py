"""The services, their order and their configuration files."""

from __future__ import annotations

import configparser
import stat
from pathlib import Path

import pytest

from k2.registry.platform import load_platform
from k2.registry.runtime import Runtime
from k2.stack import airflow, kafka, plan, ports, postgres
from k2.stack.errors import K2Error
from k2.stack.home import Home
from k2.stack.service import Service

PORTS = ports.usual_ports(load_platform())
JAVA = Path("/usr/lib/jvm/java-17")


@pytest.fixture
def services(home: Home, runtime: Runtime) -> dict[str, Service]:
    return plan.services(home, runtime, PORTS, JAVA)


def test_every_service_has_a_budget_in_the_registry(services: dict[str, Service]) -> None:
    """The one place where budgets stand is complete and nothing in it is unused."""
    assert {name for name, s in services.items() if not s.is_task} == set(load_platform().processes)


def test_what_a_service_needs_exists_and_can_be_ordered(services: dict[str, Service]) -> None:
    """No service waits for itself, directly or through others, neither at start nor at stop."""
    for name, service in services.items():
        assert name not in plan.closure(services, service.needs)
        assert set(service.stop_after) <= set(services)
        for other in service.stop_after:
            assert other not in plan.closure(services, service.needs)


def test_closure_brings_what_is_needed(services: dict[str, Service]) -> None:
    """A feed brings its broker, registry and simulator, and nothing else."""
    assert set(plan.closure(services, ["feed_kraken"])) == {"feed_kraken", "kafka", "schema_registry", "exchange_simulator"}


def test_an_unknown_service_is_refused_with_the_known_ones(services: dict[str, Service]) -> None:
    """The message lists what there is."""
    with pytest.raises(K2Error, match=r"no service 'kafak': use postgres, kafka"):
        plan.closure(services, ["kafak"])


def test_real_exchanges_need_no_simulator(home: Home, runtime: Runtime) -> None:
    """Without a simulator in the runtime there is no such service and no feed waits for one."""
    services = plan.services(home, runtime.model_copy(update={"exchange_simulator": None}), PORTS, JAVA)
    assert "exchange_simulator" not in services
    assert "exchange_simulator" not in services["feed_binance"].needs


def test_slack_itself_needs_no_stand_in(home: Home, runtime: Runtime) -> None:
    """Where messages go to Slack there is no service that takes them."""
    assert "slack_simulator" not in plan.services(home, runtime.model_copy(update={"slack_api": None}), PORTS, JAVA)


def test_no_secret_is_in_argv_or_environment(home: Home, runtime: Runtime, services: dict[str, Service]) -> None:
    """Neither a command line nor an environment holds any password of the home."""
    airflow.write_config(home, runtime)
    secrets = [path.read_text() for path in home.secrets.iterdir()]
    assert len(secrets) >= 4
    shown = " ".join(" ".join([*s.argv, *s.env.values()]) for s in services.values()) + " ".join(plan.environment(home, runtime, JAVA).values())
    assert [secret for secret in secrets if secret in shown] == []


def test_the_users_own_settings_do_not_reach_the_services(home: Home, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the shell that would change Airflow or Spark stays there."""
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "1")
    monkeypatch.setenv("SPARK_HOME", "/opt/spark")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1m")
    environment = plan.environment(home, runtime, JAVA)
    assert not {"AIRFLOW__CORE__PARALLELISM", "SPARK_HOME", "JAVA_TOOL_OPTIONS"} & set(environment)
    assert environment["K2_RUNTIME"] == str(home.runtime_file)


def test_airflows_files_are_private_and_complete(home: Home, runtime: Runtime) -> None:
    """Mode 0600, and every address names the loopback and the chosen port."""
    airflow.write_config(home, runtime.model_copy(update={"airflow": "http://127.0.0.1:28080"}))
    files = [home.airflow / "airflow.cfg", home.airflow / "passwords.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    config = configparser.ConfigParser()
    config.read(files[0])
    assert config["api"]["host"] == "127.0.0.1"
    assert config["api"]["port"] == "28080"
    assert config["core"]["execution_api_server_url"] == "http://127.0.0.1:28080/execution/"
    assert config["usage_data_collection"]["enabled"] == "False"


def test_a_percent_sign_survives_airflows_interpolation() -> None:
    """A password may hold any character."""
    config = configparser.ConfigParser()
    config.read_string(airflow.render({"core": {"key": "a%b"}}))
    assert config["core"]["key"] == "a%b"


def test_kafka_listens_on_the_loopback_only(tmp_path: Path) -> None:
    """Every listener, advertised or not, and a quorum that is bootstrapped, not fixed."""
    lines = dict(line.split("=", 1) for line in kafka.properties(tmp_path, 9092, 9093).splitlines())
    for key in ("listeners", "advertised.listeners"):
        assert [listener.split("//")[1].split(":")[0] for listener in lines[key].split(",")] == ["127.0.0.1", "127.0.0.1"]
    assert "controller.quorum.voters" not in lines
    assert lines["controller.quorum.bootstrap.servers"] == "127.0.0.1:9093"


def test_a_proxied_stream_has_a_listener_and_a_proxy_of_its_own(home: Home, runtime: Runtime) -> None:
    """The broker tells that stream's driver the proxy's port, and all others its own; nobody starts a driver before the proxy is up."""
    chosen = PORTS | ports.proxied_ports(["bronze_kraken"])
    of = {"bronze_kraken": f"127.0.0.1:{chosen['kafka_proxy_bronze_kraken']}"}
    proxied = runtime.model_copy(update={"kafka_of": of})
    services = plan.services(home, proxied, chosen, JAVA)
    assert "kafka_proxy" in services["host_agent"].needs
    assert f"bronze_kraken:{chosen['kafka_proxy_bronze_kraken']}:{chosen['kafka_behind_bronze_kraken']}" in services["kafka_proxy"].argv
    assert chosen["kafka_behind_bronze_kraken"] in services["kafka"].ports
    lines = dict(line.split("=", 1) for line in kafka.properties(home.data, 9092, 9093, {"BRONZE_KRAKEN": (9201, 9202)}).splitlines())
    assert lines["listeners"].endswith("BRONZE_KRAKEN://127.0.0.1:9201") and lines["advertised.listeners"].endswith("BRONZE_KRAKEN://127.0.0.1:9202")
    assert (proxied.kafka_for("bronze_kraken"), proxied.kafka_for("bronze_binance")) == (of["bronze_kraken"], runtime.kafka)


def test_topics_are_kept_for_the_declared_days() -> None:
    """Seven days are 604,800,000 ms."""
    assert kafka.topic_settings(load_platform().exchanges["binance"])["retention.ms"] == "604800000"


def test_postgres_has_no_socket_and_no_other_address() -> None:
    """It is reached by TCP on the loopback alone."""
    assert (postgres.SETTINGS["listen_addresses"], postgres.SETTINGS["unix_socket_directories"]) == ("127.0.0.1", "")
