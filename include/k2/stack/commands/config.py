"""Check include/config/platform.yaml (or the file that K2_PLATFORM names) and what it names: prints ok, or every mistake with its fix."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> int:
    from k2.registry.platform import ConfigError, load_platform
    from k2.stack.home import TREE

    del args
    platform = load_platform()
    for profile in platform.profiles:
        platform.with_profile(profile)
    for name, exchange in platform.exchanges.items():
        decoder = Path("spark_jobs") / "decoders" / f"{exchange.decoder}.py"
        if not (TREE / decoder).is_file():
            raise ConfigError(f"platform.yaml: exchanges.{name}.decoder: {decoder} does not exist: write it, or name another decoder")
    print(f"ok: {len(platform.exchanges)} exchanges, {len(platform.streams)} streams, {len(platform.tables)} tables")
    return 0
