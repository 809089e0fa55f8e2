#!/usr/bin/env python3
"""The harness's hand inside a test VM: runs commands, streams logs, relays calls to the host.

One JSON object per line over the virtio-serial port named "agent". A single thread and one
selector, so that nothing here waits for a command that hangs.

Host to guest: {"id": n, "op": "run"|"spawn"|"stdin"|"signal"|"put"|"get"|"ping"|"logs", ...}; each is
answered by {"id": n, ...}. Guest to host, unasked: {"hello"}, {"log"} (a piece of a log file),
{"exit"} (a spawned program ended), {"call"} (a program in the guest asks the host for something
through the socket /run/agent.sock; answered by {"answer"}). All carry "at", CLOCK_BOOTTIME.
"""

import base64
import glob
import json
import os
import selectors
import signal
import socket
import subprocess
import time
import traceback

LOG_DIR = "/run/log"
SOCKET = "/run/agent.sock"
LOG_INTERVAL_S = 0.2
OUTPUT_LIMIT = 4 << 20
GET_LIMIT = 256 << 10


def boottime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def open_port():
    while True:
        for name_file in glob.glob("/sys/class/virtio-ports/*/name"):
            with open(name_file) as f:
                if f.read().strip() == "agent":
                    return os.open("/dev/" + name_file.split("/")[-2], os.O_RDWR)
        time.sleep(0.05)


class Agent:
    def __init__(self):
        self.port = open_port()
        self.selector = selectors.DefaultSelector()
        self.received = b""
        self.programs = {}  # pid -> Popen, of spawn
        self.deadlines = {}  # pid -> (when, finish), of run
        self.offsets = {}  # log path -> bytes already streamed
        self.callers = {}  # call number -> connection of the program that asked
        self.calls = 0

        self.selector.register(self.port, selectors.EVENT_READ, self.on_port)
        self.kmsg = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self.selector.register(self.kmsg, selectors.EVENT_READ, self.on_kmsg)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(SOCKET)
        listener.listen(16)
        self.selector.register(listener, selectors.EVENT_READ, lambda: self.on_caller(listener))

    def send(self, message):
        data = json.dumps({**message, "at": boottime()}).encode() + b"\n"
        while data:
            data = data[os.write(self.port, data) :]

    def loop(self):
        with open("/proc/sys/kernel/random/boot_id") as f:
            boot_id = f.read().strip()
        self.send({"hello": boot_id, "realtime": time.time()})
        next_logs = 0.0
        while True:
            for key, _ in self.selector.select(LOG_INTERVAL_S):
                try:
                    key.data()
                except Exception:  # one bad request is not the end of the line to this guest
                    traceback.print_exc()
            now = boottime()
            for pid, (when, finish) in list(self.deadlines.items()):
                if now > when:
                    finish(timed_out=True)
            if now >= next_logs:
                self.stream_logs()
                next_logs = now + LOG_INTERVAL_S

    def on_port(self):
        data = os.read(self.port, 1 << 16)
        if not data:  # the host is not there
            time.sleep(0.1)
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "answer" in request:
                self.on_answer(request)
                continue
            try:
                reply = getattr(self, "op_" + request["op"])(request)
            except Exception as error:  # the host decides what an error means
                reply = {"error": f"{type(error).__name__}: {error}"}
            if reply is not None:
                self.send({"id": request["id"], **reply})

    # --- commands ---

    def environment(self):
        return {**os.environ, "PYTHONUNBUFFERED": "1"}

    def op_ping(self, request):
        return {"realtime": time.time()}

    def op_run(self, request):
        """bash -c; answered when the command (not what it left in the background) has ended, or at its timeout."""
        stdin, out, err = (os.fdopen(os.memfd_create(name), "w+b") for name in ("stdin", "out", "err"))
        stdin.write(request.get("stdin", "").encode())
        stdin.seek(0)
        process = subprocess.Popen(
            ["/bin/bash", "-c", request["cmd"]],
            stdin=stdin, stdout=out, stderr=err, env=self.environment(), start_new_session=True,
        )  # fmt: skip
        pidfd = os.pidfd_open(process.pid)

        def text(file):
            file.seek(0)
            return file.read(OUTPUT_LIMIT).decode(errors="replace")

        def finish(timed_out=False):
            if timed_out:
                # It may be in state D and not die: answer all the same.
                os.killpg(process.pid, signal.SIGKILL)
            self.selector.unregister(pidfd)
            os.close(pidfd)
            del self.deadlines[process.pid]
            self.send({
                "id": request["id"], "rc": process.poll(), "timed_out": timed_out,
                "out": text(out), "err": text(err),
            })  # fmt: skip
            for file in (stdin, out, err):
                file.close()

        self.deadlines[process.pid] = (boottime() + request["timeout"], finish)
        self.selector.register(pidfd, selectors.EVENT_READ, finish)

    def op_spawn(self, request):
        name, count = request["log"], 1
        while os.path.exists(log := f"{LOG_DIR}/{name}.log"):  # each program has a log of its own
            count += 1
            name = f"{request['log']}-{count}"
        with open(log, "ab") as output:
            process = subprocess.Popen(
                ["/bin/bash", "-c", request["cmd"]],  # a single command takes bash's place; signals go to all of its group
                stdin=subprocess.PIPE, stdout=output, stderr=output, env=self.environment(), start_new_session=True,
            )  # fmt: skip
        pidfd = os.pidfd_open(process.pid)

        def on_exit():
            self.selector.unregister(pidfd)
            os.close(pidfd)
            del self.programs[process.pid]
            self.stream_logs()
            self.send({"exit": process.pid, "rc": process.wait()})

        self.programs[process.pid] = process
        self.selector.register(pidfd, selectors.EVENT_READ, on_exit)
        return {"pid": process.pid, "log": name, "path": log}

    def op_stdin(self, request):
        stdin = self.programs[request["pid"]].stdin
        stdin.write(request["data"].encode())
        stdin.flush()
        return {}

    def op_signal(self, request):
        try:
            os.killpg(request["pid"], request["signal"])
        except ProcessLookupError:
            pass
        return {}

    # --- files ---

    def op_put(self, request):
        path = request["path"]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "wb") as f:
            f.write(base64.b64decode(request["data"]))
        os.chmod(path + ".new", request["mode"])
        os.rename(path + ".new", path)
        return {}

    def op_get(self, request):
        with open(request["path"], "rb") as f:
            f.seek(request["offset"])
            return {"data": base64.b64encode(f.read(GET_LIMIT)).decode()}

    # --- logs ---

    def op_logs(self, request):
        """Answered behind all that the logs have by now."""
        while self.on_kmsg():
            pass
        while self.stream_logs():
            pass
        return {}

    def stream_logs(self):
        """What was appended to /run/log/*.log since the last time, whole lines only; whether there is more."""
        more = False
        for path in glob.glob(LOG_DIR + "/*.log"):
            offset = self.offsets.get(path, 0)
            try:
                if os.stat(path).st_size <= offset:
                    continue
                with open(path, "rb") as f:
                    f.seek(offset)
                    data = f.read(GET_LIMIT)
            except OSError:
                continue
            more = more or len(data) == GET_LIMIT
            data = data[: data.rfind(b"\n") + 1] or (data if len(data) == GET_LIMIT else b"")
            if data:
                self.offsets[path] = offset + len(data)
                self.send({"log": os.path.basename(path)[:-4], "text": data.decode(errors="replace")})
        return more

    def on_kmsg(self):
        """Whether there may be more."""
        lines = []
        while len(lines) < 200:
            try:
                record = os.read(self.kmsg, 8192).decode(errors="replace")
            except BlockingIOError:
                break
            except BrokenPipeError:  # overrun: records were lost
                lines.append("[overrun: kernel messages lost]")
                continue
            head, _, text = record.partition(";")
            microseconds = int(head.split(",")[2])
            lines.append(f"[{microseconds / 1e6:12.6f}] {text.splitlines()[0]}")
        if lines:
            self.send({"log": "kernel", "text": "\n".join(lines) + "\n"})
        return len(lines) >= 200

    # --- calls to the host ---

    def on_caller(self, listener):
        connection, _ = listener.accept()
        connection.settimeout(2)  # nobody here may wait for a program
        request = json.loads(connection.makefile().readline())
        self.calls += 1
        self.callers[self.calls] = connection
        self.send({"call": self.calls, **request})

    def on_answer(self, answer):
        connection = self.callers.pop(answer["answer"])
        try:
            connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass  # the caller gave up
        connection.close()


def main():
    with open("/proc/self/oom_score_adj", "w") as f:
        f.write("-1000")
    os.nice(-10)
    os.makedirs(LOG_DIR, exist_ok=True)
    Agent().loop()


if __name__ == "__main__":
    main()
