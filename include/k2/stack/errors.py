"""The one error that a user of the command line sees."""

from __future__ import annotations


class K2Error(RuntimeError):
    """Something that the user can mend. The message is one sentence that says what is wrong and what to do."""
