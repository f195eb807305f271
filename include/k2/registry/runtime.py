"""Where the platform runs: ports, folders and sockets that `./k2 up` chose, as one file.

The file is named by the environment variable `K2_RUNTIME`; it is the only setting that the processes of the
platform take from their environment. Passwords are never in it: each is a file of mode 0600 in `secrets`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from k2.registry.platform import Platform, load_platform

Role = Literal["admin", "airflow", "control", "writer", "reader", "spare"]


class RuntimeMissing(RuntimeError):
    """K2_RUNTIME is not set or names no file."""


class Replay(BaseModel):
    """Recordings that the exchange simulator plays in place of its generator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    speed: float = Field(gt=0)
    """1 is as recorded."""


class Runtime(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    registry: Path
    """The platform.yaml that `./k2 up` has applied: a copy, so that what is being edited changes nothing that runs."""
    home: Path
    tree: Path
    jars: Path
    kafka: str
    """Bootstrap servers, host:port."""
    kafka_of: dict[str, str] = {}
    """Per stream, in place of `kafka`: a proxy through which that stream alone can be cut off from the broker."""
    kafka_proxy: str | None = None
    """HTTP root of that proxy's control endpoint, None where no stream has one."""
    schema_registry: str
    """The Confluent-compatible root, e.g. http://127.0.0.1:8085/apis/ccompat/v7."""
    postgres_host: str
    postgres_port: int
    airflow: str
    """The API server's root, e.g. http://127.0.0.1:8080."""
    agent_socket: Path
    warehouse: str
    """Absolute URI; must be the same text in Spark and pyiceberg."""
    checkpoints: Path
    feed_urls: dict[str, str] = {}
    """Per exchange, in place of the registry's own URL: the embedded stack points its feeds at the simulator."""
    feed_symbols: dict[str, tuple[str, ...]] = {}
    """Per exchange, in place of the registry's own symbols: those of the recordings while they are replayed."""
    exchange_simulator: str | None = None
    """HTTP root of the simulator's control endpoint, None where the feeds use the real exchanges."""
    replay: Replay | None = None
    slack_api: str | None = None
    """Root of the Slack stand-in, None where Slack itself is used."""

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    @property
    def schemas(self) -> Path:
        """Writer schemas seen so far, one file per schema id: a known id never waits for the registry."""
        return self.home / "schemas"

    @property
    def platform(self) -> Platform:
        return load_platform(self.profile, self.registry)

    def kafka_for(self, stream: str) -> str:
        """Bootstrap servers of one stream's driver."""
        return self.kafka_of.get(stream, self.kafka)

    def driver_dir(self, stream: str, fence: int) -> Path:
        """Where one driver and the host agent tell each other about it: ready.json, exit.json, record.json."""
        return self.run / "drivers" / f"{stream}#{fence}"

    def accepted_loss(self, stream: str, fence: int) -> Path:
        """There if a person let this driver skip what Kafka no longer holds: the offsets, as JSON."""
        return self.run / "accepted" / f"{stream}#{fence}.json"

    @property
    def spares(self) -> Path:
        """A folder for each spare: what it needs and may lose, its rehearsal, its JVM's temporary files, spare.json of the host agent."""
        return self.run / "spares"

    def checkpoint(self, stream: str) -> Path:
        return self.checkpoints / self.platform.streams[stream].checkpoint

    def password(self, role: Role) -> str:
        return (self.secrets / f"postgres_{role}").read_text().strip()

    def conninfo(self, role: Role) -> dict[str, str | int]:
        """Keyword arguments for psycopg.connect to the `lakehouse` database."""
        return {
            "host": self.postgres_host,
            "port": self.postgres_port,
            "dbname": "lakehouse",
            "user": f"k2_{role}",
            "password": self.password(role),
            "connect_timeout": 5,
            "application_name": "k2",
        }

    def sqlalchemy_uri(self, role: Role) -> str:
        """For pyiceberg's SqlCatalog: the `lakehouse` database. Holds the password, so never print it."""
        return f"postgresql+psycopg2://k2_{role}:{self.password(role)}@{self.postgres_host}:{self.postgres_port}/lakehouse"


def class_archive(jars: Path) -> Path:
    """Where the class-data archive of these jars and this environment's pyspark is, if one has been written."""
    pyspark = importlib.util.find_spec("pyspark")
    place = str(pyspark.origin) if pyspark else ""
    return jars / "spark" / f"drivers-{hashlib.sha256(place.encode()).hexdigest()[:8]}.jsa"


@functools.cache
def load_runtime() -> Runtime:
    """The runtime of this process. Raises RuntimeMissing with the fix."""
    name = os.environ.get("K2_RUNTIME")
    if not name or not Path(name).is_file():
        raise RuntimeMissing(f"K2_RUNTIME is {name!r}, which names no file: start the platform with ./k2 up")
    return Runtime.model_validate_json(Path(name).read_text())
