"""The services of the embedded stack, from the registry and the runtime."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from k2.registry.runtime import Runtime
from k2.stack import airflow, kafka, postgres, schema_registry
from k2.stack.drivers import drain_drivers
from k2.stack.errors import K2Error
from k2.stack.home import Home
from k2.stack.service import Service, http, tcp, unix_socket

PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "NO_PROXY")
"""What of the user's environment reaches a service. Anything else (AIRFLOW__…, SPARK_…) could change what it does."""


def environment(home: Home, runtime: Runtime, java_home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return kept | {
        "K2_RUNTIME": str(home.runtime_file),
        "K2_PLATFORM": str(runtime.registry),
        "PYTHONPATH": str(runtime.tree / "include"),
        "PYTHONUNBUFFERED": "1",
        "PYSPARK_PYTHON": sys.executable,
        "JAVA_HOME": str(java_home),
        "SPT_NOENV": "1",  # setproctitle would overwrite the environment by which `down` finds Airflow's processes
    }


def services(home: Home, runtime: Runtime, ports: Mapping[str, int], java_home: Path) -> dict[str, Service]:
    """Every service by name."""
    python = (sys.executable, "-m")
    found = [
        postgres.service(home, runtime),
        kafka.service(home, runtime, java_home, dict(ports)),
        schema_registry.service(home, runtime, java_home, dict(ports)),
        Service(
            name="host_agent",
            argv=(*python, "k2.launchers.agent"),
            healthy=unix_socket(runtime.agent_socket),
            needs=(
                "postgres",
                "kafka",
                "schema_registry",
                *(("kafka_proxy",) if runtime.kafka_of else ()),
            ),  # not of its own: the drivers that it starts, and drains, work with them
            stop_after=("airflow_scheduler", "airflow_triggerer"),
            stateless=True,  # its drivers outlive it
            before_stop=lambda: drain_drivers(runtime),
        ),
        *airflow.services(home, runtime),
    ]
    if runtime.slack_api:
        found.append(
            Service(
                name="slack_simulator",
                argv=(*python, "k2.alerts.slack_simulator", "--port", str(ports["slack_simulator"])),
                healthy=tcp(ports["slack_simulator"]),
                ports=(ports["slack_simulator"],),
            )
        )
    feed_needs = ["kafka", "schema_registry"]
    if runtime.exchange_simulator:
        feed_needs.append("exchange_simulator")
        streams, control = ports["exchange_simulator"], ports["exchange_simulator_control"]
        recordings = ("--replay", str(runtime.replay.folder), "--speed", str(runtime.replay.speed)) if runtime.replay else ()
        found.append(
            Service(
                name="exchange_simulator",
                argv=(*python, "k2.feeds.simulator", "--ws-port", str(streams), "--control-port", str(control), *recordings),
                healthy=tcp(control),
                ports=(streams, control),
            )
        )
    if runtime.kafka_of:
        routes = {stream: (ports[f"kafka_proxy_{stream}"], ports[f"kafka_behind_{stream}"]) for stream in runtime.kafka_of}
        control = ports["kafka_proxy_control"]
        arguments = [part for stream, (here, behind) in routes.items() for part in ("--route", f"{stream}:{here}:{behind}")]
        found.append(
            Service(
                name="kafka_proxy",
                argv=(*python, "k2.chaos.proxy", "--control-port", str(control), *arguments),
                healthy=tcp(control),
                ports=(control, *(here for here, _ in routes.values())),
            )
        )
    for exchange in runtime.platform.exchanges:
        port = ports[f"feed_{exchange}"]
        found.append(
            Service(
                name=f"feed_{exchange}",
                argv=(*python, "k2.feeds.main", "--exchange", exchange, "--metrics-port", str(port)),
                healthy=http(f"http://127.0.0.1:{port}/metrics"),
                needs=tuple(feed_needs),
                ports=(port,),
                stateless=True,
            )
        )
    return {service.name: service for service in found}


def closure(plan: Mapping[str, Service], names: Iterable[str]) -> list[str]:
    """The named services and all that they need, in the plan's order. Raises K2Error for an unknown name."""
    wanted: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in plan:
            raise K2Error(f"there is no service {name!r}: use {', '.join(plan)}")
        if name not in wanted:
            wanted.add(name)
            queue.extend(plan[name].needs)
    return [name for name in plan if name in wanted]
