"""What can go wrong in a scenario, as exceptions, and how long is waited."""

# A slow machine multiplies every time that is configured, and every deadline (tests/vm/run --slow).
slowness = 1.0

# Deadlines are there against hanging only: what is late for a moment must not fail. How fast something has to be,
# a scenario measures.
PATIENCE = 3


def stretch(seconds):
    return seconds * slowness


def patience(seconds):
    return stretch(seconds) * PATIENCE


class Failed(Exception):
    """A scenario's expectation did not hold."""


class Skip(Exception):
    """The scenario cannot run here; the text says why."""


class TimedOut(Failed):
    """Something did not happen within its deadline; the text names it."""


class CommandFailed(Failed):
    """A command in a guest ended with a status other than 0."""

    def __init__(self, node, command, result):
        super().__init__(f"{node}: '{command}' ended with {result.rc}: {(result.err or result.out).strip()[-2000:]}")
        self.result = result


class GuestGone(Failed):
    """The VM was killed, or its kernel died, while something was expected from it."""
