"""One module per source of knowledge about a stream. Each answers with a Reading: a value, or why it cannot be known.

No probe raises, and none is believed alone: `k2.supervision` judges them together.
"""

from k2.probes.observer import Observer

__all__ = ["Observer"]
