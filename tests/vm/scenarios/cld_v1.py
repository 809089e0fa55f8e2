"""Upcalls of version 1 on the real knfsd: it gets the list of those who may reclaim."""

from _cld import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup, story  # noqa: F401


def run(cluster):
    story(cluster, 1)
