"""One story out of many logs: every line of every guest and of the harness, on the host's clock."""

import re
import threading
import time

MONTHS = {name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}

BOOTTIME = re.compile(r"^\[\s*(\d+\.\d+)[\] ]")  # kernel, helpers: seconds since the guest's boot
ISO = re.compile(r"^\[?(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(\.\d+)?(Z?)")
SYSLOG = re.compile(r"^([A-Z][a-z]{2})\s+(\d+) (\d\d):(\d\d):(\d\d)(\.\d+)?")  # corosync


class Clock:
    """A guest's clocks against the host's CLOCK_MONOTONIC, for one boot. The sample with the shortest
    round trip is the best."""

    def __init__(self):
        self.uncertainty = float("inf")
        self.boot_offset = 0.0  # host monotonic - guest boottime
        self.real_offset = 0.0  # host monotonic - guest realtime

    def sample(self, sent, received, boottime, realtime):
        # The first word has no round trip and is late by an unknown part of a second.
        uncertainty = (received - sent) / 2 or 1.0
        if uncertainty <= self.uncertainty:
            self.uncertainty = uncertainty
            middle = (sent + received) / 2
            self.boot_offset, self.real_offset = middle - boottime, middle - realtime

    def host_time(self, line, seen_boottime):
        """When `line` was written, on the host's clock: by its own time stamp if it has one, otherwise
        by when the agent saw it."""
        if match := BOOTTIME.match(line):
            return float(match[1]) + self.boot_offset
        stamp = None
        if match := ISO.match(line):
            year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
            stamp, fraction, utc = (year, month, day, hour, minute, second), match[7], bool(match[8])
        elif (match := SYSLOG.match(line)) and match[1] in MONTHS:
            year = time.localtime().tm_year
            stamp = (year, MONTHS[match[1]], *(int(match[i]) for i in range(2, 6)))
            fraction, utc = match[6], False
        if stamp:
            fields = (*stamp, 0, 0, -1)
            seconds = (time.mktime(fields) if not utc else _utc(fields)) + float(fraction or 0)
            host = seconds + self.real_offset
            # A line that quotes some other time is not stamped with it.
            if abs(host - (seen_boottime + self.boot_offset)) < 600:
                return host
        return seen_boottime + self.boot_offset


def _utc(fields):
    import calendar

    return calendar.timegm(fields)


class Journal:
    """Collects the lines of a run; `say` is what the user sees as it happens."""

    def __init__(self, path, echo=True):
        self.start = time.monotonic()
        self.path = path
        self.echo = echo
        self.lock = threading.Lock()
        self.guest_lines = []  # (clock, boottime seen, host monotonic when it came, source, line)
        self.host_lines = []  # (host monotonic, line)
        self.host_log = open(path / "host.log", "a")

    def elapsed(self):
        return time.monotonic() - self.start

    def log(self, text):
        with self.lock:
            now = time.monotonic()
            self.host_lines.append((now, text))
            self.host_log.write(f"[{now - self.start:9.3f}] {text}\n")
            self.host_log.flush()

    def say(self, text, since=None):
        """Logs and prints, with the time since `since` (default: since the run began)."""
        self.log(text)
        if self.echo:
            print(f"  [{time.monotonic() - (since or self.start):6.1f} s] {text}", flush=True)

    def guest(self, vm, log, text, seen_boottime):
        with self.lock:
            source = f"{vm.name}/{log}"
            self.guest_lines += [(vm.clock, seen_boottime, time.monotonic(), source, line) for line in text.splitlines()]

    def merged(self, since=0.0, sources=re.compile("")):
        """[(host monotonic, source, line)], in order; of sources that match from their first letter on."""
        with self.lock:
            lines = [(when, "host", line) for when, line in self.host_lines if when >= since and sources.match("host")]
            # On a starved machine a guest's clock can run off by hours. The lines of a boot that failed are not of the future.
            # Stamps are read last: a hundred thousand of them (Pacemaker) take seconds, and scenarios poll.
            lines += [
                (min(clock.host_time(line, seen), came), source, line) for clock, seen, came, source, line in self.guest_lines
                if came >= since and sources.match(source)
            ]  # fmt: skip
        return sorted((entry for entry in lines if entry[0] >= since), key=lambda entry: entry[0])

    def write(self, path, since=0.0):
        """Writes the merged timeline; returns its lines."""
        lines = [f"{when - self.start:9.3f} {source:<24} {line}" for when, source, line in self.merged(since)]
        path.write_text("\n".join(lines) + "\n")
        return lines
