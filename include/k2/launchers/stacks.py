"""Where a driver hangs, from the stacks that its Python and its JVM have printed: a few lines for the alert."""

from __future__ import annotations

import re

FRAMES = 5
_JAVA_THREAD = re.compile(r'^"stream execution thread for .*?\n(?P<stack>(?:[ \t]+.*\n?)+)', re.MULTILINE)
_JAVA_STATE = re.compile(r"java\.lang\.Thread\.State: (?P<state>.+)")
_JAVA_FRAME = re.compile(r"^\s+at (?P<frame>\S+)", re.MULTILINE)
_PLUMBING = ("java.", "java.base", "jdk.", "sun.", "scala.", "app//scala.")
_PYTHON_THREAD = re.compile(r"^(?:Current thread|Thread) 0x.*\n(?P<stack>(?:  File .*\n?)+)", re.MULTILINE)
_PYTHON_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>\S+)')


def where(stacks: str) -> str:
    """The query's own thread in the JVM, and the Python thread that Spark has called back, innermost frame first.

    Empty when neither is there: a frozen process prints nothing.
    """
    return "\n".join([*_java(stacks), *_python(stacks)])


def _java(stacks: str) -> list[str]:
    thread = _JAVA_THREAD.search(stacks)
    if thread is None:
        return []
    state = _JAVA_STATE.search(thread["stack"])
    frames = [frame for frame in _JAVA_FRAME.findall(thread["stack"]) if not frame.startswith(_PLUMBING)]
    return [f"The query's thread in the JVM ({state['state'] if state else 'state unknown'}):", *(f"  {frame}" for frame in frames[:FRAMES])]


def _python(stacks: str) -> list[str]:
    """Spark calls foreachBatch in a thread of its own; the driver's main thread only waits."""
    for thread in _PYTHON_THREAD.finditer(stacks):
        frames = _PYTHON_FRAME.findall(thread["stack"])
        if any(name == "call" and "pyspark" in file for file, _, name in frames):
            ours = [f"  {file.rpartition('/')[2]}:{line} {name}" for file, line, name in frames if "/python3." not in file]
            return ["What Spark has called in Python:", *ours[:FRAMES]]
    return []
