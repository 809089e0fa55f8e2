# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that want a lock, all the time: one for each node asks the gate every few milliseconds.
What they saw proves that no gate opened for a moment between two looks of a test (within EVERY_S)."""

import threading
import time
from dataclasses import dataclass

from processes import wait

EVERY_S = 0.01


@dataclass
class Spell:
    granted: bool
    first_asked: float  # time.monotonic()
    first_heard: float
    last_asked: float


class Watcher:
    """Begins with its creation. A thread for each node, sockets only. `spells[n]`: the answers of node n, equal ones that
    follow each other as one. On a busy machine a question waits, here and there: an answer is of some moment between
    asking and hearing it, and counts as a grant within a time only if both were."""

    def __init__(self, nodes):
        self.spells = {node.number: [] for node in nodes}
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(node,), daemon=True) for node in nodes]
        for thread in self._threads:
            thread.start()

    def _watch(self, node):
        spells = self.spells[node.number]
        while not self._end.wait(EVERY_S):
            asked = time.monotonic()
            try:
                granted = node.try_lock()
            except Exception:  # its sockets' directory goes with the cluster
                granted = False
            heard = time.monotonic()
            if spells and spells[-1].granted == granted:
                spells[-1].last_asked = asked
            else:
                spells.append(Spell(granted, asked, heard, asked))

    def wait_grants(self):
        """Until everybody has had the lock."""
        wait(lambda: self.granted_between(0) == set(self.spells), 5, "all local programs to get their lock")

    def granted_between(self, start, end=None):
        """The numbers of the nodes on which a lock was granted in that time."""
        end = end or time.monotonic()
        return {
            number for number, spells in self.spells.items()
            if any(s.granted and s.last_asked > start and s.first_heard < end for s in spells)
        }  # fmt: skip

    def last_grant(self, number, before=None):
        """When the last lock was asked for that was granted by then (now); None if none was."""
        before = before or time.monotonic()
        return max((min(s.last_asked, before) for s in self.spells[number] if s.granted and s.first_asked < before), default=None)

    def closed_at(self, number, since):
        """When the first refusal after `since` was asked for; None if there was none."""
        return next((s.first_asked for s in self.spells[number] if not s.granted and s.first_asked > since), None)

    def opened_at(self, number, since):
        return next((s.first_asked for s in self.spells[number] if s.granted and s.first_asked > since), None)

    def refused_for(self, number, since):
        """For how long in all, in seconds."""
        spells = [*self.spells[number], Spell(None, time.monotonic(), 0, 0)]
        return sum(
            max(0.0, after.first_asked - max(s.first_asked, since)) for s, after in zip(spells, spells[1:]) if s.granted is False
        )

    def stop(self):
        self._end.set()
        for thread in self._threads:
            thread.join(10)
