"""Polling with a deadline."""

import time

from .errors import TimedOut, patience


def wait(condition, deadline_s, what, every=0.2):
    """Returns the first true value of condition(); TimedOut names what was waited for."""
    start = time.monotonic()
    end = start + patience(deadline_s)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimedOut(f"waited {patience(deadline_s):g} s for {what} (last seen: {value!r})")
        time.sleep(every)
