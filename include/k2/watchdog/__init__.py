"""The watchdog: looks at the streams, records what it saw, and acts. The imperative shell around `k2.supervision`.

It keeps nothing between two looks that the database does not have, so any number of them may run at once: the fence
decides which one starts a stream.
"""

from k2.watchdog.acting import Done, act
from k2.watchdog.certifying import Written, certify_due
from k2.watchdog.judged import Look, judge_all
from k2.watchdog.looking import look, urgent
from k2.watchdog.poll import Poll

__all__ = ["Done", "Look", "Poll", "Written", "act", "certify_due", "judge_all", "look", "urgent"]
