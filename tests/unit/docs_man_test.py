#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The man pages say what the programs do, and the programs what the pages say: options and verbs against --help,
exit codes, keys, defaults and ranges against the code, parameters against the agents' metadata, in both
directions. Argument: where the programs are (default build/bin)."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAN = ROOT / "docs/man"
BIN = ROOT / "build/bin"
PAGES = sorted(MAN.glob("*.[0-9]"))
OWN = re.compile(r"graced|gracectl|(fence|alert|ocf)_graced")
# What stands in front of a word on a macro line, and is none of it.
MACRO = re.compile(r"(?:^\.|\b(?:No|Ns|Pq|Bq|Dq|Ql|Op) )?(?:Pa|Cm|Ar|Ql|Sy|Em|Dq|Va|Ev|Xr|Bq|Pq|No|Ns) ")


def read(name):
    return (MAN / name).read_text()


def items(text):
    """(depth, macro and words of the .It, the text below it without macros), in order; lists may be nested."""
    found, open_items, depth = [], [], 0
    for line in text.splitlines():
        if line.startswith(".Bl "):
            depth += 1
        elif line.startswith(".El"):
            depth -= 1
            del open_items[depth:]
        elif line.startswith(".It "):
            del open_items[depth - 1 :]
            one = [depth, line[4:], ""]
            found.append(one)
            open_items.append(one)
        elif open_items and not line.startswith((".Pp", ".Sh", ".Ss")):
            open_items[-1][2] += " " + MACRO.sub("", line).replace("\\(dq", '"')
    return [tuple(one) for one in found]


def section(text, title):
    """Of a .Sh or .Ss, to the next of the same kind (or of the higher one)."""
    begin = re.search(rf"^\.S([hs]) {re.escape(title)}$", text, re.MULTILINE)
    assert begin, f"there is no section {title}"
    stop = r"^\.Sh " if begin[1] == "h" else r"^\.S[hs] "
    rest = text[begin.end() :]
    end = re.search(stop, rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def options_of_item(head):
    """`Fl c , Fl -config Ar file` -> {-c, --config}"""
    return {"-" + word for word in re.findall(r"(?<!\S)Fl (\S+)", head)}


def options_of_help(text):
    """CLI11's list, and what is written by hand: lines that begin with an option."""
    found = set()
    for line in text.splitlines():
        head = re.match(r"\s+(-\S.*)$", line)
        if head:
            found |= set(re.findall(r"(?:^|[\s,])(--?[A-Za-z][A-Za-z0-9-]*)", re.split(r"\s{2,}", head[1])[0]))
    return found


def documented(text):
    return set().union(*(options_of_item(head) for _, head, _ in items(text)))


def run(*command, env=None):
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=60, check=False, text=True, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return done.returncode, done.stdout


def help_of(program, *verb):
    code, text = run(program, *verb, "--help")
    assert code == 0, f"{program} {verb} --help ends with {code}: {text}"
    return text


def exit_codes(text):
    return {int(head) for _, head, _ in items(section(text, "EXIT STATUS"))}


class Pages(unittest.TestCase):
    maxDiff = None

    def test_lint(self):
        done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *PAGES], capture_output=True, text=True, check=False)
        self.assertEqual((done.stdout + done.stderr).strip(), "")

    def test_installed_where_they_are_looked_for(self):
        self.assertGreaterEqual(len(PAGES), 10)
        for page in PAGES:
            title = re.search(r"^\.Dt (\S+) (\d)$", page.read_text(), re.MULTILINE)
            self.assertEqual(f"{title[1].lower()}.{title[2]}", page.name)

    def test_references_exist(self):
        for page in PAGES:
            for name, number in re.findall(r"^\.?(?:.*\s)?Xr (\S+) (\d)", page.read_text(), re.MULTILINE):
                if OWN.match(name):
                    self.assertTrue((MAN / f"{name}.{number}").exists(), f"{page.name} refers to {name}({number})")

    def test_units_refer_to_pages(self):
        found = 0
        for unit in (ROOT / "systemd").rglob("*"):
            if not unit.is_file():
                continue
            for name, number in re.findall(r"man:([\w.@-]+)\((\d)\)", unit.read_text()):
                found += 1
                self.assertTrue((MAN / f"{name}.{number}").exists(), f"{unit.name} refers to {name}({number})")
        self.assertGreater(found, 0)

    def test_every_program_has_a_page(self):
        recipes = [*(ROOT / "graced").rglob("*.cmake"), *(ROOT / "graced").rglob("CMakeLists.txt")]
        installed = re.findall(r"install\(TARGETS (\S+) ", "".join(recipe.read_text() for recipe in recipes))
        self.assertIn("graced", installed)
        for program in (*installed, "graced-server", "fence_graced", "alert_graced"):
            self.assertTrue((MAN / f"{program}.8").exists(), f"{program} has no page")
        for agent in (ROOT / "gfs2-hooks/ocf").iterdir():
            self.assertTrue((MAN / f"ocf_graced_{agent.name}.7").exists(), f"ocf:graced:{agent.name} has no page")


class Options(unittest.TestCase):
    maxDiff = None

    def same(self, page, text):
        self.assertEqual(documented(section(read(page), "OPTIONS")), options_of_help(text))

    def test_graced(self):
        self.same("graced.8", help_of(BIN / "graced"))

    def test_graced_dlm(self):
        text = help_of(BIN / "graced-dlm")
        self.same("graced-dlm.8", text)
        commands = {head.split()[1] for _, head, _ in items(section(read("graced-dlm.8"), "OPTIONS")) if head.startswith("Cm ")}
        listed = re.search(r"command TEXT.*?--ctl\s+(.*)", text)[1]
        self.assertEqual(commands, {word.split()[0] for word in listed.split(" | ")})

    def test_fence_graced(self):
        program = ROOT / "gfs2-hooks/fence/fence_graced"
        text = help_of(program)
        page = section(read("fence_graced.8"), "OPTIONS")
        # -h and the synonym --port are not in its list.
        self.assertEqual(documented(page) - {"-h", "--help", "--port"}, options_of_help(text))
        keys = "|".join(re.findall(r"^  -.*?--[a-z-]+ +([a-z_|]+):", text, re.MULTILINE)).split("|")
        self.assertIn("nodename", keys)
        for key in keys:
            self.assertRegex(page, rf"(?m)^\.Cm (?:.*[ ,])?{key}\b")
        code, _ = run(program, "--port", "node1", "--action", "validate-all")
        self.assertEqual(code, 0)
        actions = set(re.search(r"actions: (.*)", text)[1].split(", "))
        self.assertEqual({a for a in actions if not re.search(rf"(?m)^\.Cm {a}\b", page)}, set())

    def test_graced_server(self):
        program = ROOT / "gfs2-hooks/server/graced-server"
        text = help_of(program)
        page = read("graced-server.8")
        # -c and -h are not in its summary.
        self.assertEqual(documented(section(page, "OPTIONS")) - {"-c", "-h", "--help"}, set(re.findall(r"--[a-z-]+", text)))
        verbs = {head.split()[1] for _, head, _ in items(section(page, "DESCRIPTION"))}
        self.assertEqual(verbs, set(re.findall(r"graced-server (\w+)", text.split("\n\n")[0])))
        source = program.read_text()
        traps = {int(n) for n in re.findall(r"trap 'exit (\d+)'", source)}
        self.assertEqual(exit_codes(page), {int(n) for n in re.findall(r"\b(?:ok|failed|usage|no_daemon)=(\d)", source)} | traps)

    def test_graced_callout(self):
        code, text = run(BIN / "graced-callout")
        self.assertEqual(code, 2)
        verbs = {head.split()[1] for _, head, _ in items(section(read("graced-callout.8"), "DESCRIPTION"))}
        self.assertEqual(verbs, set("|".join(re.findall(r"graced-callout ([a-z|-]+) ", text)).split("|")))


class Gracectl(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.program = BIN / "gracectl"
        self.verbs = {}  # of the page: verb -> its options
        verb = None
        for depth, head, _ in items(section(read("gracectl.8"), "VERBS")):
            if depth == 1:
                words = head.split()
                verb = " ".join(word for word in words[: 3 if words[1] == "config" else 2] if word != "Cm")
                self.verbs[verb] = set()
            else:
                self.verbs[verb] |= options_of_item(head)

    def test_general_options(self):
        self.assertEqual(documented(section(read("gracectl.8"), "DESCRIPTION")), options_of_help(help_of(self.program)))

    @staticmethod
    def listed(text):
        return set(re.findall(r"^  ([a-z][a-z-]*)", text.partition("Subcommands:\n")[2].partition("\n\n")[0], re.MULTILINE))

    def test_verbs(self):
        known = self.listed(help_of(self.program))
        self.assertIn("status", known)
        known |= {f"config {verb}" for verb in self.listed(help_of(self.program, "config"))}
        known.discard("config")
        # Not in --help.
        known |= set(re.findall(r'"(server-[a-z]+)", "', (ROOT / "graced/ctl/server_verbs.cc").read_text()))
        self.assertEqual(set(self.verbs), known)

    def test_options_of_verbs(self):
        for verb, options in self.verbs.items():
            with self.subTest(verb=verb):
                self.assertEqual(options, options_of_help(help_of(self.program, *verb.split())) - {"-h", "--help"})

    def test_defaults(self):
        texts = {}
        verb = None
        for depth, head, text in items(section(read("gracectl.8"), "VERBS")):
            if depth == 1:
                words = head.split()
                verb = " ".join(word for word in words[: 3 if words[1] == "config" else 2] if word != "Cm")
            else:
                for option in options_of_item(head):
                    texts[verb, option] = text
        found = 0
        for verb in self.verbs:
            for option, default in re.findall(r"^  (--[a-z-]+) [A-Z:]+=(\S+)", help_of(self.program, *verb.split()), re.MULTILINE):
                found += 1
                self.assertRegex(texts[verb, option], rf"[Dd]efault {re.escape(default)}(?![\w/])", f"{verb} {option}")
        self.assertGreater(found, 5)

    def test_exit_codes(self):
        source = (ROOT / "graced/ctl/exit_codes.hh").read_text()
        self.assertEqual(exit_codes(read("gracectl.8")), {int(n) for n in re.findall(r"exit_\w+ = (\d+)", source)})


class Daemon(unittest.TestCase):
    def test_exit_codes(self):
        source = (ROOT / "graced/daemon.hh").read_text()
        block = re.search(r"enum class exit_code : int \{(.*?)\};", source, re.DOTALL)[1]
        self.assertEqual(exit_codes(read("graced.8")), {int(n) for n in re.findall(r"= (\d+)", block)})
        unit = re.search(r"RestartPreventExitStatus=(.*)", (ROOT / "systemd/graced.service").read_text())[1].split()
        self.assertRegex(read("graced.8"), f"but not on exit codes {' and '.join(sorted(unit))}")


class Configuration(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.page = {}  # (section, key) -> text
        text = read("graced.conf.5")
        for title in re.findall(r"^\.Ss (\[.*)$", text, re.MULTILINE):
            name = title.strip("[]").replace(". Ns Ar NAME ", ".NAME").strip()
            for _, head, about in items(section(text, title)):
                self.page[name, head.split()[1]] = " ".join(about.split())

    def test_keys_and_defaults_of_the_example(self):
        known, values = set(), {}
        where = None
        for line in (ROOT / "systemd/graced.conf").read_text().splitlines():
            if head := re.match(r"#?\[([\w.]+)\]$", line):
                where = re.sub(r"^server\..*", "server.NAME", head[1])
            elif key := re.match(r"#?(\w+) = (.*)$", line):
                known.add((where, key[1]))
                values[where, key[1]] = key[2]
        # The one key that the example leaves out: it goes with the stand-in for tests only.
        self.assertEqual(set(self.page), known | {("gate", "socket")})
        for key, about in self.page.items():
            default = re.search(r"Default (.*?)\.$", about)
            if default:
                self.assertEqual(values[key].strip('"'), default[1].strip('"'), key)
        told = {key for key, about in self.page.items() if "Default " in about}
        without = {("graced", "name"), ("grace", "nodes_without_gfs2"), ("gate", "socket")}
        without |= {("server.NAME", key) for key in ("addresses", "interface", "exports")}
        self.assertEqual(told, set(self.page) - without)

    def test_keys_and_ranges_of_the_code(self):
        source = (ROOT / "graced/config.cc").read_text()
        table = source[source.index("& sections() {") : source.index("// --- 4. errors ---")]
        rules = re.findall(r'[({]\s*"(\w+)",\s*"((?:[^"\\]|\\.)*)",?', table)
        rules += re.findall(r'\{"(\w+)",\s*\n\s*"((?:[^"\\]|\\.)*)"', table)
        sections = {name for name, _ in self.page}
        self.assertEqual({key for key, _ in rules} - sections, {key for _, key in self.page})
        found = 0
        for key, allowed in rules:
            for limits in (*re.findall(r"from (\d+ to \d+)", allowed), *re.findall(r"up to \d+", allowed)):
                found += 1
                texts = [about for (_, name), about in self.page.items() if name == key]
                self.assertTrue(any(limits in about.lower() for about in texts), f"{key}: {limits}")
        self.assertGreater(found, 15)


class Agents(unittest.TestCase):
    def metadata(self, agent):
        with tempfile.TemporaryDirectory() as functions:
            (Path(functions) / "ocf-shellfuncs").write_text("")
            code, text = run("bash", ROOT / "gfs2-hooks/ocf" / agent, "meta-data", env={"OCF_FUNCTIONS_DIR": functions})
        self.assertEqual(code, 0, text)
        return text

    def test_parameters_and_timeouts(self):
        for agent in ("graced", "server"):
            page = read(f"ocf_graced_{agent}.7")
            text = self.metadata(agent)
            parameters = {head.split()[1]: about for _, head, about in items(section(page, "PARAMETERS"))}
            self.assertEqual(set(parameters), set(re.findall(r'<parameter name="(\w+)"', text)))
            for default in re.findall(r'default="(\w+)"', text):
                self.assertTrue(any(f"default {default}." in about for about in parameters.values()), default)
            timeouts = " ".join(section(page, "PARAMETERS").split())
            for action, timeout in re.findall(r'<action name="(start|stop|monitor)" timeout="(\d+)s"', text):
                self.assertRegex(timeouts, rf"\b{action}( and stop)? {timeout} s" if action != "stop" else rf"stop {timeout} s")
            actions = set(re.findall(r'<action name="([\w-]+)"', text)) - {"meta-data"}
            self.assertEqual({head.split()[1] for _, head, _ in items(section(page, "DESCRIPTION"))}, actions)

    def test_alert(self):
        source = (ROOT / "gfs2-hooks/alert/alert_graced").read_text()
        parameters = {head.split()[1]: about for _, head, about in items(section(read("alert_graced.8"), "DESCRIPTION"))}
        found = dict(re.findall(r"^readonly (\w+)=\$\{\1:-(\d+)\}", source, re.MULTILINE))
        self.assertEqual(set(parameters), set(found))
        for name, default in found.items():
            self.assertIn(f"default {default}.", parameters[name])


if __name__ == "__main__":
    if not shutil.which("mandoc"):
        print("no mandoc: skipped")
        sys.exit(77)
    if len(sys.argv) > 1:
        BIN = Path(sys.argv.pop(1))
    unittest.main()
