"""Check include/config/platform.yaml (or the file that K2_PLATFORM names): prints ok, or every mistake with its fix."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> int:
    from k2.registry.platform import load_platform

    del args
    platform = load_platform()
    for profile in platform.profiles:
        platform.with_profile(profile)
    print(f"ok: {len(platform.exchanges)} exchanges, {len(platform.streams)} streams, {len(platform.tables)} tables")
    return 0
