#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The shell programs of gfs2-hooks pass shellcheck, the Python ones compile.
set -eu
cd "$(dirname "$0")/../.."
command -v shellcheck >/dev/null || {
    echo "no shellcheck: skipped"
    exit 77
}
mapfile -t shell < <(grep -rlE --exclude-dir=gate '^#!(/usr)?/bin/(env )?(ba)?sh' gfs2-hooks tests/unit)
mapfile -t python < <(grep -rlE --exclude-dir=gate '^#!/usr/bin/(env )?python3' gfs2-hooks tests/unit)
shellcheck "${shell[@]}"
for file in "${python[@]}"; do
    python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$file"
done
echo "${#shell[@]} shell, ${#python[@]} Python programs: clean"
