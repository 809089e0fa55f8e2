#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""README and docs/*.md: links lead somewhere, commands are ones that the programs know, files that are shown can be
read by who reads them, messages that are explained are said by somebody. Argument: where the programs are (default
build/bin)."""

import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "build/bin"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


def run(*command):
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=60, check=False, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout


def fences(text):
    return [(name.strip(), body) for name, body in FENCE.findall(text)]


def is_shell(name, body):
    """Commands, by what they begin with; drawings and files are none."""
    first = body.split(maxsplit=1)[0] if body.strip() else ""
    commands = "apt-get systemctl cmake make modprobe dkms mokutil mkfs.gfs2 mkdir gracectl graced-server corosync-quorumtool dlm_tool pcs"
    drawing = re.search("[─│▶▼]", body)
    return not name and not drawing and (first in commands.split() or first.startswith("tests/"))


def commands(text, program):
    """Each use of a program in code: the words up to what ends a command."""
    places = [body for name, body in fences(text) if is_shell(name, body)]
    places += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for place in places:
        for line in place.splitlines():
            for found in re.findall(rf"(?:^|[\s$(;&|]){re.escape(program)}((?: +[^\s;&|()#]+)*)", line):
                yield found.split()


def anchors(path):
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


class Text(unittest.TestCase):
    maxDiff = None

    def test_links(self):
        found = 0
        for document in DOCUMENTS:
            for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", document.read_text())):
                if "://" in target:
                    continue
                found += 1
                name, _, anchor = target.partition("#")
                path = (document.parent / name).resolve() if name else document
                self.assertTrue(path.exists(), f"{document.name}: {target}")
                if anchor:
                    self.assertIn(anchor, anchors(path), f"{document.name}: {target}")
        self.assertGreater(found, 30)

    def test_operators_documents_are_reached_from_the_hub(self):
        hub = (ROOT / "docs/operating.md").read_text()
        for name in ("install", "pacemaker", "monitoring", "troubleshooting", "upgrade", "disaster-recovery", "hacking"):
            self.assertIn(f"({name}.md)", hub)

    def test_shell_parses(self):
        found = 0
        for document in DOCUMENTS:
            for name, body in fences(document.read_text()):
                if is_shell(name, body):
                    found += 1
                    code, said = run("bash", "-nc", body)
                    self.assertEqual(code, 0, f"{document.name}: {said}")
        self.assertGreater(found, 10)

    def test_gracectl_is_used_as_it_is(self):
        helps = {}

        def help_of(*verb):
            if verb not in helps:
                helps[verb] = run(BIN / "gracectl", *verb, "--help")
            return helps[verb]

        found = 0
        for document in DOCUMENTS:
            for words in commands(document.read_text(), "gracectl"):
                general = help_of()[1]
                plain = [word for word in words if re.fullmatch(r"[a-z][a-z-]+", word)]
                # `gracectl` alone, or with what is no verb (`gracectl --help`, `gracectl VERB`)
                if not plain or words[0].startswith("-") and words[0] != "--json":
                    continue
                verb = tuple(plain[:2]) if plain[0] == "config" else (plain[0],)
                with self.subTest(document=document.name, command=" ".join(["gracectl", *words])):
                    code, text = help_of(*verb)
                    self.assertEqual(code, 0, text)
                    for option in (word.split("=")[0] for word in words if re.match(r"--[a-z]", word)):
                        self.assertTrue(re.search(rf"(?m)^  (-.,)?{option}\b", text + general), option)
                    found += 1
        self.assertGreater(found, 40)

    def test_graced_server_is_used_as_it_is(self):
        program = ROOT / "gfs2-hooks/server/graced-server"
        text = run(program, "--help")[1]
        known = set(re.findall(r"graced-server (\w+)", text))
        found = 0
        for document in DOCUMENTS:
            for words in commands(document.read_text(), "graced-server"):
                if words:
                    found += 1
                    self.assertIn(words[0], known, document.name)
                    self.assertLessEqual({w for w in words if w.startswith("--")}, set(re.findall(r"--[a-z-]+", text)))
        self.assertGreater(found, 10)

    def test_configurations_are_right(self):
        found = 0
        for document in DOCUMENTS:
            for name, body in fences(document.read_text()):
                if not name and re.match(r"\[(graced|grace|server\.\w+)\]\n", body):
                    found += 1
                    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
                        file.write(body)
                        file.flush()
                        code, said = run(BIN / "gracectl", "config", "check", file.name)
                    self.assertEqual(code, 0, f"{document.name}: {said}")
                    self.assertNotIn("warning", said, document.name)
        self.assertGreaterEqual(found, 3)

    @unittest.skipUnless(shutil.which("corosync"), "no corosync")
    def test_corosync_reads_its_configuration(self):
        [body] = [body for _, body in fences((ROOT / "docs/install.md").read_text()) if body.startswith("totem {")]
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(body)
            file.flush()
            code, said = run("corosync", "-t", "-c", file.name)
        self.assertEqual(code, 0, said)

    def test_dlm_controld_reads_its_configuration(self):
        """A blank line ends a device's section; dlm_controld does not start where a device comes before one (fence_config.c)."""
        pages = [page.read_text() for page in (ROOT / "docs/man").glob("*.8")]
        shown = [body for document in DOCUMENTS for _, body in fences(document.read_text())]
        shown += [body for page in pages for body in re.findall(r"^\.Bd.*\n((?:.*\n)*?)\.Ed", page, re.MULTILINE)]
        shown = [body for body in shown if re.search(r"(?m)^device ", body)]
        self.assertGreaterEqual(len(shown), 3)
        for body in shown:
            for section in body.split("\n\n"):
                self.assertLessEqual(len(re.findall(r"(?m)^device ", section)), 1, section)

    def test_messages_are_said_by_somebody(self):
        folders = ("graced", "libgrace", "gfs2-hooks", "lockd-shim")
        sources = "".join(
            path.read_text(errors="replace")
            for folder in folders
            for path in (ROOT / folder).rglob("*")
            if path.suffix in (".cc", ".hh", ".c", ".h") or path.name == "graced-server"
        )
        sources = re.sub(r'"\s*\n\s*"', "", sources)
        # The module asks for it, the kernel says it; and what clients' kernels say.
        others = {"lost N locks", "Key was rejected by service", "unknown filesystem type 'gfs2'"}
        found = 0
        for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines():
            cells = line.split(" | ")
            if not line.startswith("| ") or len(cells) < 2:
                continue
            for said in re.findall(r"`([^`]+)`", cells[0]):
                if said in others or re.match(r"(gracectl|graced-server|fsid=|graced\.sqlite|crash-N)", said):
                    continue
                found += 1
                for part in re.split(r"\b[XS]\b", said):
                    self.assertTrue(part.strip() in sources, f"nobody says '{part.strip()}'")
        self.assertGreater(found, 25)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        BIN = Path(sys.argv.pop(1))
    unittest.main()
