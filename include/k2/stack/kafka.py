"""One Kafka 4.3 broker in KRaft mode, and the exchanges' topics."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from k2.registry.platform import Exchange
from k2.registry.runtime import Runtime
from k2.stack.errors import K2Error
from k2.stack.home import Home, write_atomically
from k2.stack.java import class_archive
from k2.stack.service import Service, tcp

DAY_MS = 24 * 60 * 60 * 1000


def properties(data: Path, port: int, controller_port: int, proxied: Mapping[str, tuple[int, int]] | None = None) -> str:
    """The broker's configuration. `proxied`: by the name of a further listener, its port and the one that clients are told."""
    listeners = {"PLAINTEXT": (port, port), "CONTROLLER": (controller_port, controller_port), **(proxied or {})}
    own, told = (",".join(f"{name}://127.0.0.1:{ports[side]}" for name, ports in listeners.items()) for side in (0, 1))
    return f"""\
process.roles=broker,controller
node.id=1
listeners={own}
advertised.listeners={told}
listener.security.protocol.map={",".join(f"{name}:PLAINTEXT" for name in listeners)}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=4
log.segment.bytes=268435456
"""


def service(home: Home, runtime: Runtime, java_home: Path, ports: dict[str, int]) -> Service:
    config = home.run / "kafka.properties"
    proxied = {stream.upper(): (ports[f"kafka_behind_{stream}"], ports[f"kafka_proxy_{stream}"]) for stream in runtime.kafka_of}
    classes = ["-cp", f"{runtime.jars}/kafka/*"]
    quick = ("-XX:TieredStopAtLevel=1",) if runtime.platform.profiles[runtime.profile].quick_start else ()
    java = str(java_home / "bin" / "java")
    return Service(
        name="kafka",
        argv=(
            *(java, "-Xmx512m", "-Xms256m", "-XX:+UseSerialGC", *quick, *class_archive(runtime.jars, "kafka")),
            *("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", *classes, "kafka.Kafka", str(config)),
        ),
        healthy=tcp(ports["kafka"]),
        ports=(ports["kafka"], ports["kafka_controller"], *(own for own, _ in proxied.values())),
        prepare=lambda: _initialise(
            home, config, [java, "-XX:TieredStopAtLevel=1", *classes], properties(home.data / "kafka", ports["kafka"], ports["kafka_controller"], proxied)
        ),
        setup=lambda: create_topics(runtime),
        grace_seconds=30,
    )


def _initialise(home: Home, config: Path, java: list[str], content: str) -> None:
    data = home.data / "kafka"
    write_atomically(config, content)
    if (data / "meta.properties").is_file():
        return
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    command = [*java, "kafka.tools.StorageTool", "format", "--standalone", "--ignore-formatted", "--cluster-id", cluster, "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise K2Error(f"Kafka's data folder {data} could not be made: {(done.stderr or done.stdout).strip().splitlines()[-1:]}: set K2_HOME to another folder")


def topic_settings(exchange: Exchange) -> dict[str, str]:
    return {"retention.ms": str(exchange.retention_days * DAY_MS), "compression.type": "lz4", "cleanup.policy": "delete"}


def create_topics(runtime: Runtime) -> None:
    """Every exchange's topic, with more partitions or another retention if the registry now says so."""
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType

    client = AdminClient({"bootstrap.servers": runtime.kafka, "socket.timeout.ms": 10000, "log_level": 0})
    existing = client.list_topics(timeout=30).topics
    changes = []
    for exchange in runtime.platform.exchanges.values():
        settings = topic_settings(exchange)
        if exchange.topic not in existing:
            topic = NewTopic(exchange.topic, num_partitions=exchange.partitions, replication_factor=1, config=settings)
            client.create_topics([topic], operation_timeout=30)[exchange.topic].result(30)
            continue
        if len(existing[exchange.topic].partitions) < exchange.partitions:
            client.create_partitions([NewPartitions(exchange.topic, exchange.partitions)])[exchange.topic].result(30)
        entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
        changes.append(ConfigResource(ResourceType.TOPIC, exchange.topic, incremental_configs=entries))
    for future in client.incremental_alter_configs(changes).values() if changes else ():
        future.result(30)
