#!/usr/bin/python3
"""Runs in a guest: processes that lock pieces of one file at random, as gate_storm.py orders.

    _gate_storm.py FILE PROCESSES SEED

Until /run/storm-over exists. Each second it prints how many were granted and refused so far; at the end one line for each
request: `T0 T1 KIND RESULT`, times of CLOCK_BOOTTIME; and `overlap …` when two processes of this node think that they have
the same byte exclusively."""

import errno
import fcntl
import mmap
import os
import random
import struct
import sys
import time

FLOCK = struct.Struct("hhqqi4x")
SLOTS = 8
OVER = "/run/storm-over"
TYPES = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def request(fd, kind, start, length, wait):
    fcntl.fcntl(fd, fcntl.F_SETLKW if wait else fcntl.F_SETLK, FLOCK.pack(TYPES[kind], 0, start, length, 0))


def work(path, seed, owners, counts, me):
    rng = random.Random(f"{seed} {me}")
    fd = os.open(path, os.O_RDWR)
    out = []
    while not os.path.exists(OVER):
        start = rng.randrange(SLOTS)
        length = rng.randint(1, SLOTS - start)
        wait = rng.random() < 0.5
        # Read first sometimes: then the write is an upgrade.
        kinds = rng.choice((["w"], ["r", "w"], ["r"], ["w", "r"]))
        held = None
        for kind in kinds:
            # Two readers that both wait for an upgrade wait for ever; dlm_controld does not find that out.
            wait = wait and kind == kinds[0]
            t0 = now()
            try:
                request(fd, kind, start, length, wait)
                result = "granted"
                held = kind
            except OSError as error:
                result = errno.errorcode[error.errno]
            out.append(f"{t0:.6f} {now():.6f} {kind}{'W' if wait else ''} {result}")
            counts[2 * me + (result != "granted")] += 1
        if held == "w":
            mine = range(start, start + length)
            for slot in mine:
                if owners[slot]:
                    out.append(f"overlap {slot}: {owners[slot]} and {me}")
                owners[slot] = me
            time.sleep(rng.random() * 0.01)
            for slot in mine:
                if owners[slot] != me:
                    out.append(f"overlap {slot}: {me} became {owners[slot]}")
                owners[slot] = 0
        request(fd, "u", start, length, False)
    print("\n".join(out), flush=True)


def main():
    path, processes, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    owners = mmap.mmap(-1, SLOTS)
    shared = mmap.mmap(-1, 2 * (processes + 1) * 4)
    counts = memoryview(shared).cast("I")  # [2 * who]: granted, [2 * who + 1]: not; each written by one process
    pids = []
    for me in range(1, processes + 1):
        pid = os.fork()
        if not pid:
            work(path, seed, owners, counts, me)
            os._exit(0)
        pids.append(pid)
    while not os.path.exists(OVER):
        time.sleep(1)
        print(f"so far {sum(counts[::2])} {sum(counts[1::2])}", flush=True)
    for pid in pids:
        os.waitpid(pid, 0)
    print("end", flush=True)


if __name__ == "__main__":
    main()
