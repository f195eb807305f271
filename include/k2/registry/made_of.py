"""What the processes of the platform are made of: the code and the configuration that they read when they start."""

from __future__ import annotations

import hashlib

from k2.registry.files import REGISTRY
from k2.registry.runtime import Runtime


def fingerprint(runtime: Runtime) -> str:
    """Changes when a file changes that a process reads at its start: code, configuration as it was applied, the runtime."""
    include, jobs = runtime.tree / "include", runtime.tree / "spark_jobs"
    declared = {path for path in (include / "config").rglob("*.*") if path != REGISTRY} | {runtime.registry}
    seen = hashlib.sha256()
    for path in sorted(declared.union(include.rglob("*.py"), jobs.rglob("*.py"), [runtime.run / "runtime.json"])):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        seen.update(f"{path}\0{facts.st_mtime_ns}\0{facts.st_size}\0".encode())
    return seen.hexdigest()
