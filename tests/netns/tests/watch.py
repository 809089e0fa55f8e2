# SPDX-License-Identifier: GPL-2.0-or-later
"""gracectl watch in a terminal (tmux) and through a pipe, while a grace passes and daemons die."""

import json
import os
import re
import shutil
import signal
import time

from harness import BIN
from processes import Program, Skip, run, wait

NOT_RUNNING = 3


class Terminal:
    """A tmux of its own, which ends with the harness; in it one command after another in a shell."""

    def __init__(self, node, width=80, height=24):
        if not shutil.which("tmux"):
            raise Skip("there is no tmux")
        self.socket = str(node.cluster.sockets / "tmux")
        environment = ["env", "-u", "TMUX", "-u", "NO_COLOR", "LC_ALL=C.UTF-8", "TERM=xterm-256color", "PS1=ready> "]
        self.server = Program(
            "tmux", [*environment, "tmux", "-S", self.socket, "-f", "/dev/null", "-D"], node.dir / "tmux.log"
        )  # fmt: skip
        wait(lambda: os.path.exists(self.socket), 5, "tmux")
        self._ask("new-session", "-d", "-x", str(width), "-y", str(height), "bash", "--norc", "--noprofile")
        self.wait_text("ready>")

    def _ask(self, *words):
        return run(["tmux", "-S", self.socket, *words]).stdout

    def type(self, text):
        self._ask("send-keys", "-l", text)
        self._ask("send-keys", "Enter")

    def key(self, name):
        self._ask("send-keys", name)

    def screen(self, colours=False):
        return self._ask("capture-pane", "-p", *(["-e"] if colours else []))

    def wait_text(self, pattern, deadline_s=10):
        return wait(
            lambda: re.search(pattern, self.screen(), re.MULTILINE), deadline_s,
            lambda: f"'{pattern}' on the screen:\n{self.screen()}", every=0.1,
        )  # fmt: skip

    def resize(self, width, height):
        self._ask("resize-window", "-x", str(width), "-y", str(height))

    def state(self):
        """Whether the cursor is shown and the other screen is in use."""
        return self._ask("display-message", "-p", "#{cursor_flag} #{alternate_on}").split()

    def settings(self):
        [tty] = self._ask("display-message", "-p", "#{pane_tty}").split()
        return run(["stty", "-F", tty, "-g"]).stdout

    def wait_settings(self, settings):
        """The shell, too, has the terminal its own way while it shows its prompt."""
        wait(lambda: self.settings() == settings, 5, lambda: f"settings {settings}, not {self.settings()}")

    def pid_of(self, program):
        """The process of that name whose terminal this is."""
        [tty] = self._ask("display-message", "-p", "#{pane_tty}").split()
        return int(run(["pgrep", "-x", "-t", tty.removeprefix("/dev/"), program]).stdout)

    def end(self):
        self._ask("kill-server")
        self.server.wait_end(5)


def watching(node, *words):
    return " ".join(node.inside(BIN / "gracectl", *words, "--ipc", "graced", "watch"))


def started(make, **options):
    cluster = make(3, config={"grace": {"period": 60}}, **options)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    for client in ("alice", "bob", "carol"):
        assert nfsd.create(client) == "ok"
    assert cluster[2].serve("vs2").create("dave") == "ok"
    return cluster


def test_screen(make):
    """A grace on an 80x24 terminal, seen from its first to its last phase; another size in its midst; q restores
    the terminal."""
    cluster = started(make)
    terminal = Terminal(cluster[2])
    before = terminal.settings()
    terminal.type(watching(cluster[2]) + "; echo ended with $?")
    terminal.wait_text(r"NORMAL → .*")
    terminal.wait_text(r"^  vs1 .* 3 clients +serves")
    assert terminal.state() == ["0", "1"], terminal.state()
    cluster[1].kill()
    terminal.wait_text("ENTERING")
    terminal.wait_text(r"server vs1 NEEDs: node node1 died; 3 on record")
    terminal.wait_text(r"^  node1 .* dead, NOT PROVEN FENCED")
    announced = cluster[2].announce("vs1")
    cluster.fence_done(1)
    nfsd = cluster[2].start_nfsd("vs1", announced)
    terminal.wait_text(r"RECLAIMING .* at most \d+ s more")
    assert nfsd.reclaim("alice") == "ok"
    terminal.wait_text(r"^  vs1 +N node2 +█+░+ 1 of 3 +reclaims, \d+ s left")
    terminal.wait_text(r"^  node3 +closed, E +up$")
    assert "\x1b[" in terminal.screen(colours=True)
    terminal.resize(132, 50)
    terminal.wait_text(r"^ graced on node2 {60,}q: quit ")
    assert nfsd.reclaim("bob") == "ok"
    terminal.wait_text(r"^  vs1 +N node2 +█{20,}░+ 2 of 3")
    terminal.resize(40, 10)
    terminal.wait_text(r"^ RECLAIMING .* more$")
    assert len(terminal.screen().rstrip("\n").splitlines()) <= 10
    terminal.resize(80, 24)
    cluster[3].gracectl("lift", "vs1")
    terminal.wait_text(r"server vs1: 1 of 3 purged")
    terminal.wait_text(r"the grace of epoch 2 is lifted")
    terminal.wait_text(r"NORMAL")
    terminal.key("q")
    terminal.wait_text("ended with 0")
    assert terminal.state() == ["1", "0"], terminal.state()
    terminal.wait_settings(before)
    terminal.end()


def test_terminal_is_restored(make):
    """graced is killed, and hangs: the screen says so, and goes on when it is back. Ctrl-C while it is dead, SIGTERM
    and SIGQUIT restore the terminal."""
    cluster = started(make)
    node = cluster[2]
    terminal = Terminal(node)
    before = terminal.settings()

    def begin():
        terminal.type("clear; " + watching(node) + "; echo ended with $?")

    def restored():
        terminal.wait_text("ended with 0")
        assert terminal.state() == ["1", "0"], terminal.state()
        terminal.wait_settings(before)

    def descriptors(seconds):
        """The fewest in that time: an attempt to connect has some."""
        path, found, end = f"/proc/{terminal.pid_of('gracectl')}/fd", [], time.monotonic() + seconds
        while time.monotonic() < end:
            found.append(len(os.listdir(path)))
            time.sleep(0.05)
        return min(found)

    def asks_without_leaking():
        """A watch that is left alone for a night must not run out of descriptors."""
        before = descriptors(3)
        time.sleep(6)
        assert descriptors(3) <= before, before

    def no_trouble():
        wait(lambda: "!! graced" not in terminal.screen(), 20, lambda: f"no trouble:\n{terminal.screen()}")

    begin()
    terminal.wait_text("NORMAL")
    node.graced.kill()
    terminal.wait_text(r"!! graced [^!]*\(shown\s+is how it was \d+ s\s+ago")
    asks_without_leaking()
    node.start_graced()
    terminal.wait_text(r"graced answers again", 20)
    no_trouble()
    node.graced.signal(signal.SIGSTOP)
    terminal.wait_text(r"!! graced [^!]*(no|not)\s+answer", 20)
    asks_without_leaking()
    node.graced.signal(signal.SIGCONT)
    no_trouble()
    terminal.wait_text("NORMAL", 20)
    node.graced.kill()
    terminal.wait_text("!! graced")
    terminal.key("C-c")
    restored()

    begin()
    terminal.wait_text(f"ended with {NOT_RUNNING}")
    node.start_graced()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        begin()
        terminal.wait_text("q: quit")
        os.kill(terminal.pid_of("gracectl"), number)
        restored()
    terminal.end()


def test_no_colour(make):
    """NO_COLOR: attributes, but no colours."""
    cluster = make(1)
    cluster.start()
    terminal = Terminal(cluster[1])
    terminal.type("NO_COLOR=1 " + watching(cluster[1]))
    terminal.wait_text("NORMAL")
    assert re.search(r"\x1b\[[0-9;]*7m", terminal.screen(colours=True))
    assert not re.search(r"\x1b\[(?:[0-9;]*;)?3[0-7]m", terminal.screen(colours=True)), terminal.screen(colours=True)
    terminal.key("q")
    terminal.end()


def test_lines(make):
    """Through a pipe: a line for each change, with --json an object; nothing is lost in a grace that is shorter
    than the time between two looks; ends with its reader."""
    cluster = started(make)
    node = cluster[2]
    text = Program("watch", node.inside(BIN / "gracectl", "--ipc", "graced", "watch"), node.dir / "watch.log", talks=True)
    assert "node2: phase normal, C 1, R 0, quorate, gate open" in text.hear(5)
    objects = Program(
        "watch --json", node.inside(BIN / "gracectl", "--ipc", "graced", "--json", "watch"), node.dir / "watch-json.log",
        talks=True,
    )  # fmt: skip
    first = json.loads(objects.hear(5))
    assert (first["what"], first["status"]["phase"]) == ("watching", "normal"), first

    def until(what):
        """The objects up to the one of that word."""
        all_of_them = []
        while not all_of_them or all_of_them[-1]["what"] != what:
            all_of_them.append(json.loads(objects.hear(15)))
        return all_of_them

    cluster[3].gracectl("start", "vs1")  # its nfsd has lost nothing: over in milliseconds
    heard = [e["what"] for e in until("lifted")]
    # Not "enforcing": it may be over before anyone's gate has said that it is closed.
    assert heard[0] == "began" and {"need", "done", "purge"} <= set(heard), heard
    while "the grace of epoch 2 is lifted" not in text.hear(5):
        pass
    cluster[1].kill()
    heard = until("phase")
    assert {"time", "what", "node", "server", "detail", "count", "all", "epoch"} == set(heard[-1]), heard[-1]
    assert heard[-1]["detail"] == "entering" and heard[-1]["epoch"] == 3
    assert until("enforcing")[-1]["epoch"] == 3
    node.graced.kill()
    assert "graced" in until("gone")[-1]["detail"]
    node.start_graced()
    assert until("back")[-1]["status"]["recovery"] in (0, 2)
    objects.signal(signal.SIGTERM)
    assert objects.wait_end(5) == -signal.SIGTERM
    text.process.stdout.close()
    assert text.wait_end(5) in (0, -signal.SIGPIPE), text.status
