"""The host's end of the line to a guest's agent (../guest/agent.py has the messages)."""

import itertools
import json
import queue
import threading
import time

from .errors import GuestGone, TimedOut, patience

# The guest keeps a command's time limit; this much later the host gives up on the guest itself.
MORE_S = 15.0


class Channel:
    """Requests with answers in any order, from any thread; unasked messages go to `on_message`."""

    def __init__(self, name, sock, on_message):
        self.name = name
        self.sock = sock
        self.on_message = on_message
        self.gone = threading.Event()
        self.pending = {}  # request id -> queue for its answer
        self.ids = itertools.count(1)
        self.lock = threading.Lock()
        threading.Thread(target=self._read, name=f"{name}-channel", daemon=True).start()

    def request(self, op, limit_s, **fields):
        """Gives up `limit_s` (as it is) and some more seconds later."""
        request_id, answer = next(self.ids), queue.SimpleQueue()
        self.pending[request_id] = answer
        try:
            if self.gone.is_set():
                raise GuestGone(f"{self.name} is down (asked: {op} {fields.get('cmd', '')})")
            self._send({"id": request_id, "op": op, **fields})
            try:
                reply = answer.get(timeout=limit_s + patience(MORE_S))
            except queue.Empty:
                raise TimedOut(f"{self.name}: no answer from its agent to {op} {fields.get('cmd', '')}") from None
        finally:
            self.pending.pop(request_id, None)
        if reply is None:
            raise GuestGone(f"{self.name} went down during: {op} {fields.get('cmd', '')}")
        if "error" in reply:
            raise OSError(f"{self.name}: {op} {fields.get('path', '')}: {reply['error']}")
        return reply

    def answer(self, call, fields):
        """Answers a call that a program in the guest made."""
        self._send({"answer": call, **fields})

    def close(self):
        self.gone.set()
        self.sock.close()

    def _send(self, message):
        try:
            with self.lock:
                self.sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            raise GuestGone(f"{self.name} is down") from None

    def _read(self):
        received = b""
        while True:
            try:
                data = self.sock.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                break
            now = time.monotonic()
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                try:
                    message = json.loads(line)
                except ValueError:  # a line cut by a power failure
                    continue
                if "id" in message:
                    answer = self.pending.get(message["id"])
                    if answer:
                        message["received"] = now
                        answer.put(message)
                else:
                    self.on_message(message, now)
        self.gone.set()
        for answer in list(self.pending.values()):
            answer.put(None)
