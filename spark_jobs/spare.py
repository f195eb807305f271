"""A warm spare: a driver that has no stream yet. It starts its session, rehearses, and waits to be told which stream it is.

Run by the host agent as `spare.py --name NAME`, with one end of a socket as standard input. Out goes `warm` as soon as
it is; in comes one line of JSON, {"stream": name, "fence": number}. When the other end closes first, the spare ends.
It holds no fence and opens the streams' catalog only when it has been told.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
import traceback

from driver import Driver, Exit, drive, show_threads_on_signal
from k2.registry.observed import ExitCode
from k2.registry.platform import ConfigError
from k2.registry.runtime import RuntimeMissing, load_runtime
from rehearsal import STARTS, Interrupted, rehearse
from session import number_tasks_from, start_session

WARM = b"warm\n"


class Channel:
    """The host agent's end of the line. Whatever it says, it says once."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(0))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # children must not hold the line open
        self._told = threading.Event()
        self._line = b""
        threading.Thread(target=self._listen, name="channel", daemon=True).start()

    def _listen(self) -> None:
        while not self._line.endswith(b"\n"):
            try:
                received = self._socket.recv(4096)
            except OSError:  # it died with something of this spare unread
                received = b""
            if not received:
                os._exit(ExitCode.STOPPED)  # the agent is gone, or needs this spare no more
            self._line += received
        self._told.set()

    def told(self) -> bool:
        return self._told.is_set()

    def say_warm(self) -> None:
        with contextlib.suppress(OSError):  # told in the meantime, and the line closed
            self._socket.sendall(WARM)

    def wait(self) -> tuple[str, int]:
        """The stream and the fence, once they are known."""
        self._told.wait()
        said = json.loads(self._line)
        return said["stream"], said["fence"]


def main() -> None:
    show_threads_on_signal()
    parser = argparse.ArgumentParser(description="Run a warm spare. Started by the host agent.")
    parser.add_argument("--name", required=True, help="name of the spare, and of its folder")
    name = parser.parse_args().name
    channel = Channel()
    try:
        runtime = load_runtime()
        streams = runtime.platform.streams
    except (ConfigError, RuntimeMissing, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.CONFIG)
    folder = runtime.spares / name
    exit_ = Exit(folder)
    spark = start_session(
        application=f"spare {name}",
        jars=runtime.jars,
        heap_mb=runtime.platform.spare_heap_mb,
        scratch=folder / "scratch",
        fence=0,
        quick_start=all(stream.quick_start for stream in streams.values()),
    )
    exit_.watch(spark)
    if not channel.told():
        try:
            rehearse(spark, runtime, name, folder, channel.told)
        except Interrupted:
            print("the rehearsal was cut short", file=sys.stderr)
        except Exception:
            traceback.print_exc()  # a spare with a running JVM is better than none
        channel.say_warm()
    stream, fence = channel.wait()
    driver = Driver.of(runtime, stream, fence)
    exit_.directory = driver.directory
    number_tasks_from(spark, fence)
    drive(driver, STARTS[driver.spec.type], exit_, lambda: spark)


if __name__ == "__main__":
    main()
