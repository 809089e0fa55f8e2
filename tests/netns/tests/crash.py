# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon whose protocol core broke an invariant (graced-broken: one that can be broken)."""

from harness import BIN
from processes import run, wait

SOFTWARE = 70  # sysexits.h


def test_broken_invariant(make):
    """It ends, its gate closes, and its last inputs are in a file beside the database that gracectl replay
    plays up to the step that broke it. The others go on."""
    cluster = make(3)
    cluster.start_dlm()
    for number in (1, 2, 3):
        cluster[number].boot()
        cluster[number].start_corosync()
        cluster[number].start_graced(program="graced-broken" if number == 2 else "graced")
    cluster.wait_open()
    node = cluster[2]
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    assert nfsd.create("mallory") == "ok", "the others do not go on"
    ended = node.graced.wait_end(10)
    assert ended == SOFTWARE, ended
    assert node.gate() != "open" and not node.try_lock()
    wait(lambda: cluster[1].gate() == cluster[3].gate() == "open", 10, "the others' gates to be open")
    assert node.logged("invariant broken: mallory is on record.*The gate closes"), node.last_log()
    file = node.database.parent / "crash-1.rec"
    assert node.logged(f"{file}: gracectl replay"), node.last_log()
    assert file.stat().st_mode & 0o777 == 0o600, oct(file.stat().st_mode)

    done = run([str(BIN / "gracectl"), "replay", str(file)])
    lines = done.stdout.splitlines()
    assert lines[0].endswith(": invariant broken: mallory is on record"), lines[0]
    steps = [line for line in lines[2:] if not line.startswith("      -> ")]
    assert "deliver: RECORDS(1) from node 1" in steps[-1], steps[-1]
    assert any("START(vs1" in step for step in steps), "the inputs before it are missing"

    # With its real core it is a member again, and mallory is on record everywhere.
    node.start_graced()
    cluster.wait_open()
    assert set(node.clients("vs1")) == {"alice", "mallory"}
    return f"{file.stat().st_size} bytes, {len(steps)} steps"
