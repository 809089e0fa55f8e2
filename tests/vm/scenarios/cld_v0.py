"""Upcalls of version 0 on the real knfsd: it asks for each client when it reclaims; who is refused is expired first."""

from _cld import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup, story  # noqa: F401


def run(cluster):
    story(cluster, 0)
