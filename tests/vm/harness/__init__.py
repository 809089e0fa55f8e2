"""Harness for scenarios on real kernels: QEMU, Debian's kernel, corosync, DLM, GFS2. See ../README.md."""
