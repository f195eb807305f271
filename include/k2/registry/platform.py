"""The models of `include/config/platform.yaml`.

`load_platform()` is the way in for all that runs: it reads a file once per process and turns every mistake into a
`ConfigError` that names the file, the field, the value and the fix.
"""

from __future__ import annotations

import difflib
import functools
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from k2.registry.files import CONFIG_DIR, registry_file


class ConfigError(ValueError):
    """A mistake in platform.yaml. The message names file, field, value and fix, one line per mistake."""


def _is_name(value: str) -> str:
    if not value or not all(c.islower() or c.isdigit() or c == "_" for c in value) or not value[0].isalpha():
        raise ValueError("use lower-case letters, digits and _ and begin with a letter, as in bronze_binance")
    return value


def _is_folder(value: str) -> str:
    if not value or not all(c.isalnum() or c in "-_" for c in value):
        raise ValueError("use one folder name of letters, digits, - and _, as in bronze-binance")
    return value


Name = Annotated[str, AfterValidator(_is_name)]


class Model(BaseModel):
    """Immutable, and a key that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Layer(StrEnum):
    BRONZE = "bronze"
    SILVER = "silver"
    DLQ = "dlq"


class Catalog(Model):
    name: Name
    namespace: Name
    table_defaults: dict[str, str]


class Profile(Model):
    trigger_seconds: PositiveInt | None = None
    quick_start: bool | None = None


class Reconnect(Model):
    """Backoff of a feed handler: first x 2^(n-1) seconds, never above cap; it gives up after `attempts`."""

    first_seconds: float = Field(gt=0)
    cap_seconds: float = Field(gt=0)
    attempts: PositiveInt


class Feed(Model):
    protocol: Literal["binance", "kraken_v1", "kraken_v2"]
    url: str = Field(pattern=r"^wss?://")
    failover_url: str | None = Field(default=None, pattern=r"^wss?://")
    symbols: tuple[str, ...] = Field(min_length=1)
    ping_seconds: float = Field(gt=0)
    pong_timeout_seconds: float = Field(gt=0)
    stale_seconds: float = Field(gt=0)
    rotate_hours: float = Field(gt=0)
    reconnect: Reconnect


class Exchange(Model):
    topic: str = Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    partitions: PositiveInt
    retention_days: PositiveInt
    schema_file: str = Field(alias="schema", pattern=r"\.avsc$")
    decoder: Name
    feed: Feed

    @property
    def subject(self) -> str:
        """The schema registry's subject of the topic's values (TopicNameStrategy)."""
        return f"{self.topic}-value"

    def avro_schema(self) -> str:
        """The exchange's Avro schema, as JSON text."""
        return (CONFIG_DIR / "avro" / self.schema_file).read_text()


class Table(Model):
    layer: Layer
    target_file_size_mb: PositiveInt


class Stream(Model):
    """One Spark application with one query."""

    type: Literal["bronze", "silver"]
    exchange: Name
    reads: Name | None = None
    writes: tuple[Name, ...] = Field(min_length=1)
    checkpoint: Annotated[str, AfterValidator(_is_folder)]
    trigger_seconds: PositiveInt
    max_rows_per_trigger: PositiveInt
    quick_start: bool = False
    """Compile with the JVM's first compiler alone: a driver starts with half the processor time, and stays slower for good."""
    heap_mb: int = Field(ge=256)
    memory_mb: int = Field(ge=512)

    @model_validator(mode="after")
    def _reads_fits_type(self) -> Stream:
        if self.type == "silver" and self.reads is None:
            raise ValueError("a silver stream needs `reads`: name the bronze table it reads")
        if self.type == "bronze" and self.reads is not None:
            raise ValueError("a bronze stream reads its exchange's topic: remove `reads`")
        if self.memory_mb <= self.heap_mb:
            raise ValueError("memory_mb must exceed heap_mb: Python and the JVM's own memory come on top of the heap")
        return self


class Spares(Model):
    """Driver processes that are up and wait to be told which stream to run."""

    count: int = Field(ge=0, le=16)
    """How many are kept; 0 makes every start a cold one."""
    memory_mb: int = Field(ge=512)


class Threshold(Model):
    """Green below `yellow`, yellow from it on, red above `red`."""

    yellow: float = Field(gt=0)
    red: float = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Threshold:
        if self.red < self.yellow:
            raise ValueError("red must not be below yellow")
        return self


class Thresholds(Model):
    memory_percent: Threshold
    lag_rows: Threshold
    lag_seconds: Threshold
    dlq_percent: Threshold
    checkpoint_mb: Threshold
    batch_percent_of_trigger: Threshold
    disk_percent: Threshold


class Forgiveness(Model):
    commits: PositiveInt
    minutes: PositiveInt


class Breaker(Model):
    """A leaky bucket of deaths: when one more would overflow it, the stream is held until enough has leaked."""

    deaths: int = Field(ge=1, le=20)
    minutes: PositiveInt
    """The time in which a full bucket runs empty."""


class Restart(Model):
    backoff_seconds: tuple[float, ...] = Field(min_length=1)
    forgiven_after: Forgiveness
    breaker: Breaker
    at_once: PositiveInt
    """How many streams may be on their way back from trouble at the same time."""
    start_timeout_seconds: PositiveInt
    drain_timeout_seconds: PositiveInt


class Slo(Model):
    """What is promised of each stream: for this share of the window it commits, or has nothing to commit."""

    target_percent: float = Field(gt=50, lt=100)
    window_days: int = Field(ge=7, le=366)


class Control(Model):
    """Limits of what people ask for."""

    approval_minutes: int = Field(ge=1, le=60)
    """No answer for so long is a no."""
    reach_seconds: int = Field(ge=60, le=3600)
    """How long a request may take to come true."""
    window_hours: float = Field(gt=0, le=24)
    """The longest maintenance window."""


class Routes(Model):
    page: str = Field(pattern=r"^#")
    ticket: str = Field(pattern=r"^#")
    digest: str = Field(pattern=r"^#")


class DeadMan(Model):
    """When the host agent itself tells people that nobody watches the streams."""

    silent_seconds: int = Field(ge=30)
    """Without a look of any watcher."""
    runs_silent_seconds: int = Field(ge=120)
    """Without a run of streams_watch, which alone acts; a run may take minutes while a stream is drained."""
    first_look_seconds: int = Field(ge=30)
    """The same while none has looked yet: Airflow takes its time to start."""
    repeat_minutes: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> DeadMan:
        if self.first_look_seconds < self.silent_seconds:
            raise ValueError("first_look_seconds must not be below silent_seconds: whoever never looked has at least as long")
        if self.runs_silent_seconds < self.silent_seconds:
            raise ValueError("runs_silent_seconds must not be below silent_seconds: a run looks more rarely than the poll does")
        return self


class Checkpoints(Model):
    """What is done with checkpoints: how long one that was taken away can go back, and bounds of one nightly run."""

    quarantine_days: int = Field(ge=1, le=366)
    backups: PositiveInt
    """Generations that are kept of each."""
    prune_files: PositiveInt
    """Of one checkpoint, in one run; the rest waits for the next one."""
    prune_seconds: PositiveInt
    """The same."""


class Alerts(Model):
    slack_connection: Name
    routes: Routes


class Platform(Model):
    catalog: Catalog
    profiles: dict[Name, Profile]
    exchanges: dict[Name, Exchange]
    tables: dict[Name, Table]
    streams: dict[Name, Stream]
    spares: Spares
    processes: dict[Name, PositiveInt]
    checkpoints: Checkpoints
    thresholds: Thresholds
    restart: Restart
    slo: Slo
    control: Control
    dead_man: DeadMan
    alerts: Alerts

    @model_validator(mode="after")
    def _references_hold(self) -> Platform:
        mistakes: list[str] = []
        checkpoints: dict[str, str] = {}
        topics: dict[str, str] = {}
        for name, exchange in self.exchanges.items():
            if (other := topics.setdefault(exchange.topic, name)) and other != name:
                mistakes.append(f"exchanges.{name}.topic: {exchange.topic!r} is the topic of {other} too: give each its own")
            if not (CONFIG_DIR / "avro" / exchange.schema_file).is_file():
                mistakes.append(f"exchanges.{name}.schema: {exchange.schema_file!r} is not in include/config/avro/: add it there")
        for name, stream in self.streams.items():
            at = f"streams.{name}"
            other = checkpoints.setdefault(stream.checkpoint, name)
            if other != name:
                mistakes.append(f"{at}.checkpoint: {stream.checkpoint!r} is the checkpoint of {other} too: give each stream its own folder")
            if stream.exchange not in self.exchanges:
                mistakes.append(f"{at}.exchange: {stream.exchange!r} is not declared{_nearest(stream.exchange, self.exchanges)}")
            for field, table in [("writes", t) for t in stream.writes] + ([("reads", stream.reads)] if stream.reads else []):
                if table not in self.tables:
                    mistakes.append(f"{at}.{field}: {table!r} is not declared under tables{_nearest(table, self.tables)}")
            layers = [self.tables[t].layer for t in stream.writes if t in self.tables]
            wanted = [Layer.BRONZE] if stream.type == "bronze" else [Layer.SILVER, Layer.DLQ]
            if len(layers) == len(stream.writes) and layers != wanted:
                mistakes.append(f"{at}.writes: {[str(x) for x in layers]} tables, but a {stream.type} stream writes {[str(x) for x in wanted]}, in this order")
            if stream.reads in self.tables and self.tables[stream.reads].layer is not Layer.BRONZE:
                mistakes.append(f"{at}.reads: {stream.reads!r} is a {self.tables[stream.reads].layer} table, but a silver stream reads a bronze one")
        if self.spares.memory_mb <= self.spare_heap_mb:
            mistakes.append(f"spares.memory_mb: {self.spares.memory_mb} must exceed {self.spare_heap_mb}, the largest heap_mb of the streams: raise it")
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    @property
    def spare_heap_mb(self) -> int:
        """The heap of a spare: that of the stream with the largest, because it may become any of them."""
        return max((stream.heap_mb for stream in self.streams.values()), default=0)

    def writer_of(self, table: str) -> list[str]:
        """Names of the streams that write `table`."""
        return [name for name, stream in self.streams.items() if table in stream.writes]

    def feeder_of(self, stream: str) -> str | None:
        """The Bronze stream that fills the table that a Silver stream reads; None for a Bronze stream."""
        reads = self.streams[stream].reads
        return self.writer_of(reads)[0] if reads and self.writer_of(reads) else None

    def with_profile(self, profile: str) -> Platform:
        """This platform with the named profile's overrides in each stream."""
        if profile not in self.profiles:
            raise ConfigError(f"profile {profile!r} is not declared{_nearest(profile, self.profiles)}")
        overrides = self.profiles[profile].model_dump(exclude_none=True)
        streams = {name: s.model_copy(update=overrides) for name, s in self.streams.items()}
        return self.model_copy(update={"streams": streams})


def _nearest(value: str, known: Any) -> str:
    near = difflib.get_close_matches(value, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else f": declare it or use one of {', '.join(known)}"


def _known_keys() -> set[str]:
    return {field.alias or name for model in Model.__subclasses__() for name, field in model.model_fields.items()}


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        field = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), _known_keys(), n=1)
            lines.append(f"{path.name}: {field}: unknown key: {f'did you mean {near[0]!r}?' if near else 'remove it'}")
        elif item["type"] == "missing":
            lines.append(f"{path.name}: {field}: missing: add it")
        elif item["type"] == "value_error":
            for line in str(item["ctx"]["error"]).splitlines():
                lines.append(
                    f"{path.name}: {field + ': ' if field else ''}{line}"
                    + (f" (it is {item['input']!r})" if field and not isinstance(item["input"], dict) else "")
                )
        else:
            lines.append(f"{path.name}: {field}: {item['input']!r} is refused: {item['msg']}")
    return "\n".join(lines)


class _UniqueKeys(yaml.SafeLoader):
    """YAML silently keeps the last of two equal keys; here that is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice: remove one", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_registry(path: Path) -> str:
    """The text of a registry file. Raises ConfigError."""
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: create it, or let K2_PLATFORM name another") from None


def parse_platform(path: Path, text: str | None = None) -> Platform:
    """Check one registry file, of which the text may have been read already. Raises ConfigError."""
    try:
        raw = yaml.load(read_registry(path) if text is None else text, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader with a duplicate check
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name}: not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path.name}: must be a mapping with the keys {', '.join(Platform.model_fields)}")
    try:
        return Platform.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explain(path, error)) from None


@functools.cache
def load_platform(profile: str = "standard", path: Path | None = None) -> Platform:
    """The platform that is declared in a file, by default the registry of this process, under a profile."""
    return parse_platform(path or registry_file()).with_profile(profile)
