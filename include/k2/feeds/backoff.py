"""When a feed handler connects again, and when it gives up."""

from __future__ import annotations

import random

from k2.registry.platform import Reconnect


class GaveUp(RuntimeError):
    """Every allowed attempt in a row ended without a trade."""


class Backoff:
    """Counts the connections in a row that delivered no trade.

    A connection that delivered and lasted is followed by the next one at once, because each second costs trades.
    One that delivered and broke at once waits `first_seconds`, so that a server that does this in a loop is not hammered.
    """

    def __init__(self, policy: Reconnect, rng: random.Random | None = None) -> None:
        self._policy = policy
        self._rng = rng or random.Random()
        self.failures = 0

    def delivered(self) -> None:
        """A trade arrived: earlier failures are forgiven."""
        self.failures = 0

    def after(self, *, delivered: bool, lasted_seconds: float) -> float:
        """Seconds to wait after a connection ended. Raises GaveUp."""
        if delivered:
            self.failures = 0
            return 0.0 if lasted_seconds >= self._policy.first_seconds else self._jittered(self._policy.first_seconds)
        self.failures += 1
        if self.failures >= self._policy.attempts:
            raise GaveUp(f"{self.failures} connections in a row delivered no trade: check the address, the symbols and the network")
        return self._jittered(self._policy.first_seconds * 2 ** (self.failures - 1))

    def _jittered(self, seconds: float) -> float:
        return min(seconds, self._policy.cap_seconds) * self._rng.uniform(0.5, 1.0)
