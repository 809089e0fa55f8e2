"""Upcalls of version 2 on the real knfsd: it gets the list, with the hashes of principals; its own grace outlasts the cluster's and is ended with it."""

from _cld import CLIENTS, CLUSTER, LIMIT_S, NODES, cleanup, story  # noqa: F401


def run(cluster):
    story(cluster, 2)
