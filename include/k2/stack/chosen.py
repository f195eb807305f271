"""What a command that looks at streams is asked about: the platform of this home, and the streams that are meant."""

from __future__ import annotations

from k2.registry.runtime import Runtime
from k2.stack.errors import K2Error
from k2.stack.home import Home


def chosen(stream: str | None) -> tuple[Runtime, list[str]]:
    """The platform of `K2_HOME`, as it runs or ran last, and the stream that was named; all of them without a name.

    Raises K2Error before the first start, and for a stream that platform.yaml does not declare.
    """
    home = Home.at()
    runtime = home.runtime()
    if runtime is None:
        raise K2Error(f"the platform of {home.path} was never started: start it with ./k2 up")
    streams = list(runtime.platform.streams)
    if stream is None:
        return runtime, streams
    if stream not in streams:
        raise K2Error(f"stream {stream!r} is not declared: use one of {', '.join(streams)}")
    return runtime, [stream]
