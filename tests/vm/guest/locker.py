#!/usr/bin/python3
"""Owner of locks on one file, told what to do by lines on standard input.

    locker.py FILE [posix|ofd|flock]

    lock [r|w] [START LENGTH]        waits for it (F_SETLKW)
    try [r|w] [START LENGTH]         does not wait (F_SETLK): granted or busy
    poll SECONDS [r|w] [START LENGTH]  tries until granted or SECONDS are over
    unlock [START LENGTH]
    test [r|w] [START LENGTH]        F_GETLK: free, or held TYPE START LENGTH PID
    write TEXT                       makes TEXT the file's content and syncs it
    read                             prints the file's content

Each is answered by one line `[BOOTTIME REALTIME] #N VERB RESULT`, N counting the commands; `lock` prints
a line `waits` before it. Errors are RESULT `error ENAME`. LENGTH 0: to the end of the file."""

import errno
import fcntl
import os
import struct
import sys
import time

FLOCK = struct.Struct("hhqqi4x")  # struct flock of x86_64
TYPES = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}
NAMES = {value: name for name, value in TYPES.items()}
POSIX = (fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK)
OFD = (fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW, fcntl.F_OFD_GETLK)


def say(text):
    print(f"[{time.clock_gettime(time.CLOCK_BOOTTIME):.3f} {time.time():.3f}] {text}", flush=True)


class Locker:
    def __init__(self, path, kind):
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.kind = kind
        self.set, self.set_wait, self.get = OFD if kind == "ofd" else POSIX

    def change(self, kind, start, length, wait):
        if self.kind == "flock":
            operation = {"r": fcntl.LOCK_SH, "w": fcntl.LOCK_EX, "u": fcntl.LOCK_UN}[kind]
            fcntl.flock(self.fd, operation if wait or kind == "u" else operation | fcntl.LOCK_NB)
        else:
            fcntl.fcntl(self.fd, self.set_wait if wait else self.set, FLOCK.pack(TYPES[kind], 0, start, length, 0))

    def attempt(self, *arguments):
        try:
            self.change(*arguments, wait=False)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return "busy"
            raise
        return "granted"

    def do(self, verb, words, number):
        if verb == "write":
            data = (" ".join(words) + "\n").encode()
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, data, 0)
            os.fsync(self.fd)
            return "ok"
        if verb == "read":
            return os.pread(self.fd, 4096, 0).decode().rstrip("\n")
        seconds = float(words.pop(0)) if verb == "poll" else 0
        kind = words.pop(0) if words and words[0] in TYPES else "w"
        start, length = (int(words[0]), int(words[1])) if words else (0, 0)
        if verb == "lock":
            say(f"#{number} lock waits")
            self.change(kind, start, length, wait=True)
            return "granted"
        if verb == "try":
            return self.attempt(kind, start, length)
        if verb == "poll":
            end, tries = time.monotonic() + seconds, 1
            while (result := self.attempt(kind, start, length)) == "busy" and time.monotonic() < end:
                time.sleep(0.05)
                tries += 1
            return f"{result} after {tries} tries"
        if verb == "unlock":
            self.change("u", start, length, wait=False)
            return "ok"
        if verb == "test":
            found = fcntl.fcntl(self.fd, self.get, FLOCK.pack(TYPES[kind], 0, start, length, 0))
            kind, _, start, length, pid = FLOCK.unpack(found)
            return "free" if kind == fcntl.F_UNLCK else f"held {NAMES[kind]} {start} {length} {pid}"
        return "error unknown-command"


def main():
    locker = Locker(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "posix")
    say("#0 open ok")
    for number, line in enumerate(sys.stdin, 1):
        verb, *words = line.split()
        try:
            result = locker.do(verb, words, number)
        except OSError as error:
            result = f"error {errno.errorcode.get(error.errno, error.errno)}"
        say(f"#{number} {verb} {result}")


if __name__ == "__main__":
    main()
