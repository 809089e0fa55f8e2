#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What says the same of lockd_shim's netlink interface agrees: the YAML, the header, docs/netlink.md.
set -u
cd "$(dirname "$(readlink -f "$0")")/../.." || exit 2
python3 -c 'import yaml' 2>/dev/null || { echo "python3-yaml is missing" && exit 77; }
status=0
lockd-shim/tools/check_spec || status=1
if ! lockd-shim/tools/netlink_doc --check; then
    echo "docs/netlink.md is not what lockd-shim/tools/netlink_doc --write would make"
    status=1
fi
exit $status
