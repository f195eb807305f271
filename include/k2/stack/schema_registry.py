"""The Apicurio schema registry, and the exchanges' Avro schemas in it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from k2.registry.runtime import Runtime
from k2.stack.home import Home
from k2.stack.jars import LOCK, read_lock
from k2.stack.java import class_archive
from k2.stack.service import Service, http


def service(home: Home, runtime: Runtime, java_home: Path, ports: dict[str, int]) -> Service:
    port = ports["schema_registry"]
    jar = next(jar for jar in read_lock(LOCK.read_text()) if jar.purpose == "registry")
    settings = {
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": str(port),
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        "apicurio.datasource.url": f"jdbc:h2:file:{home.data / 'registry' / 'schemas'}",
        "quarkus.log.level": "WARN",
        "quarkus.http.access-log.enabled": "false",
    }
    return Service(
        name="schema_registry",
        argv=(
            str(java_home / "bin" / "java"),
            *("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *class_archive(runtime.jars, "schema_registry")),
            *(f"-D{name}={value}" for name, value in settings.items()),
            *("-jar", str(runtime.jars / "registry" / f"{jar.artifact}-{jar.version}-runner.jar")),
        ),
        healthy=http(f"{runtime.schema_registry}/subjects"),
        ports=(port,),
        prepare=lambda: (home.data / "registry").mkdir(exist_ok=True),
        setup=lambda: register_schemas(runtime),
    )


def register_schemas(runtime: Runtime) -> None:
    """Compatibility BACKWARD for all subjects, and the current schema of every exchange under its subject."""
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    with httpx.Client(base_url=runtime.schema_registry, timeout=30, trust_env=False, headers=headers) as registry:
        registry.put("/config", content=json.dumps({"compatibility": "BACKWARD"})).raise_for_status()
        for exchange in runtime.platform.exchanges.values():
            answer = registry.post(f"/subjects/{exchange.subject}/versions", content=json.dumps({"schema": exchange.avro_schema(), "schemaType": "AVRO"}))
            answer.raise_for_status()
