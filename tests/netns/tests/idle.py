# SPDX-License-Identifier: GPL-2.0-or-later
"""What an idle graced costs."""

import os
import time

from processes import Skip

SECONDS = 10
RSS_LIMIT_KIB = 20 * 1024
CPU_LIMIT_PERCENT = 5  # of one core


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as stat:
        words = stat.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_memory_and_cpu(make):
    """An idle daemon in a cluster of three: less than 20 MB, and how much CPU."""
    cluster = make(3)
    cluster.start()
    nfsd = cluster[1].serve("vs1")
    assert nfsd.create("alice") == "ok"
    pids = [node.graced.pid for node in cluster]
    with open(f"/proc/{pids[0]}/maps") as maps:
        if "libasan" in maps.read():
            raise Skip("built with AddressSanitizer")
    before = [cpu_s(pid) for pid in pids]
    time.sleep(SECONDS)
    cpu = max(100 * (cpu_s(pid) - b) / SECONDS for pid, b in zip(pids, before))
    rss = max(rss_kib(pid) for pid in pids)
    assert rss < RSS_LIMIT_KIB, f"{rss} KiB"
    assert cpu < CPU_LIMIT_PERCENT, f"{cpu:.1f} % of a core"
    return f"{rss / 1024:.1f} MiB resident, {cpu:.1f} % of a core, token {cluster.token} ms"
