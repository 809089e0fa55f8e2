# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that want a lock, all the time: one for each node asks the gate every few milliseconds.
What they saw proves that no gate opened for a moment between two looks of a test (within EVERY_S)."""

import threading
import time

EVERY_S = 0.01


class Watcher:
    """Begins with its creation. A thread for each node, sockets only. `changes[n]`: [(time, granted)]
    of node n, each time that the answer became another one; time.monotonic()."""

    def __init__(self, nodes):
        self.changes = {node.number: [] for node in nodes}
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(node,), daemon=True) for node in nodes]
        for thread in self._threads:
            thread.start()

    def _watch(self, node):
        changes = self.changes[node.number]
        while not self._end.wait(EVERY_S):
            # The answer of a moment between these two; a grant counts from the earlier, a refusal too.
            at = time.monotonic()
            try:
                granted = node.try_lock()
            except Exception:  # its sockets' directory goes with the cluster
                granted = False
            if not changes or changes[-1][1] != granted:
                changes.append((at, granted))

    def granted_between(self, start, end=None):
        """The numbers of the nodes on which a lock was granted in that time."""
        end = end or time.monotonic()
        found = set()
        for number, changes in self.changes.items():
            for (at, granted), after in zip(changes, [*changes[1:], (float("inf"), None)]):
                if granted and at < end and after[0] > start:
                    found.add(number)
        return found

    def closed_at(self, number, since):
        """When the first refusal after `since` came; None if there was none."""
        return next((at for at, granted in self.changes[number] if not granted and at > since), None)

    def opened_at(self, number, since):
        return next((at for at, granted in self.changes[number] if granted and at > since), None)

    def refused_for(self, number, since):
        """For how long in all, in seconds."""
        changes = [*self.changes[number], (time.monotonic(), None)]
        return sum(
            max(0.0, end - max(at, since)) for (at, granted), (end, _) in zip(changes, changes[1:]) if granted is False
        )

    def stop(self):
        self._end.set()
        for thread in self._threads:
            thread.join(10)
