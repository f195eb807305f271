"""Where a driver hangs, from the stacks that its Python and its JVM have printed: a few lines for the alert."""

from __future__ import annotations

import re
from collections.abc import Sequence

FRAMES = 5
_JAVA_THREAD = re.compile(r'^"(?P<name>stream execution thread for |Executor task launch worker for )[^"\n]*".*\n(?P<stack>(?:[ \t]+.*\n?)+)', re.MULTILINE)
_JAVA_STATE = re.compile(r"java\.lang\.Thread\.State: (?P<state>.+)")
_JAVA_FRAME = re.compile(r"^\s+at (?P<frame>\S+)", re.MULTILINE)
_PLUMBING = ("java.", "java.base", "jdk.", "sun.", "scala.", "app//scala.")
_PYTHON_THREAD = re.compile(r"^(?:Current thread|Thread) 0x.*\n(?P<stack>(?:  File .*\n?)+)", re.MULTILINE)
_PYTHON_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>\S+)')


def where(stacks: str) -> str:
    """The query's own thread in the JVM, a task that it waits for, and the Python thread that Spark has called back, innermost frame first.

    Empty when neither is there: a frozen process prints nothing.
    """
    threads = list(_JAVA_THREAD.finditer(stacks))
    queries = [thread for thread in threads if thread["name"].startswith("stream")]
    tasks = [thread for thread in threads if thread["name"].startswith("Executor")]
    return "\n".join([*_java("The query's thread in the JVM", queries), *_java(f"The first of {len(tasks)} running tasks", tasks), *_python(stacks)])


def _java(title: str, threads: Sequence[re.Match[str]]) -> list[str]:
    """The first of the threads."""
    if not threads:
        return []
    stack = threads[0]["stack"]
    state = _JAVA_STATE.search(stack)
    frames = [frame for frame in _JAVA_FRAME.findall(stack) if not frame.startswith(_PLUMBING)]
    return [f"{title} ({state['state'] if state else 'state unknown'}):", *(f"  {frame}" for frame in frames[:FRAMES])]


def _python(stacks: str) -> list[str]:
    """Spark calls foreachBatch in a thread of its own; the driver's main thread only waits."""
    for thread in _PYTHON_THREAD.finditer(stacks):
        frames = _PYTHON_FRAME.findall(thread["stack"])
        if any(name == "call" and "pyspark" in file for file, _, name in frames):
            ours = [f"  {file.rpartition('/')[2]}:{line} {name}" for file, line, name in frames if "/python3." not in file]
            return ["What Spark has called in Python:", *ours[:FRAMES]]
    return []
