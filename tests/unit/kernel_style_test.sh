#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The kernel modules build without a warning, sparse has nothing to say, and nor has checkpatch.pl if
# it is there (CHECKPATCH, or unpacked sources of Debian's package linux-source in /usr/src).
set -u
cd "$(dirname "$(readlink -f "$0")")/../.." || exit 2
kernel=$(printf '%s\n' /lib/modules/6.1.*/build/Makefile | sort -V | tail -n 1)
kernel=${kernel#/lib/modules/} kernel=${kernel%/build/Makefile}
[ -e "/lib/modules/$kernel/build/Makefile" ] || { echo "no headers of a 6.1 kernel" && exit 77; }
command -v sparse >/dev/null || { echo "sparse is missing" && exit 77; }

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy/gfs2-hooks"
cp -r lockd-shim "$copy/" && cp -r gfs2-hooks/gate "$copy/gfs2-hooks/"
find "$copy" \( -name '*.o' -o -name '.*.cmd' -o -name '*.ko' \) -delete
status=0
said=$(make -C "$copy/gfs2-hooks/gate" KVER="$kernel" W=1 C=2 2>&1) || status=1
if [ $status != 0 ] || grep -E 'warning:|error:' <<<"$said"; then
    echo "$said" | tail -n 40
    status=1
fi
grep -q CHECK <<<"$said" || { echo "sparse was not run" && status=1; }

checkpatch=${CHECKPATCH:-$(printf '%s\n' /usr/src/linux-source-*/scripts/checkpatch.pl | tail -n 1)}
if [ -e "$checkpatch" ]; then
    # Not for one version: the modules build for several kernels. A copy of lockd's operations cannot be const.
    # Not what a build has left there (*.mod.c).
    find lockd-shim gfs2-hooks/gate tests/vm/guest/foreign_hook -name '*.[ch]' ! -name '*.mod.c' ! -path '*/tools/*' -print0 |
        xargs -0 perl "$checkpatch" --no-tree --terse --show-types \
            --ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON,CONST_STRUCT -f |
        grep -v '^total: 0 errors, 0 warnings' && status=1
else
    echo "checkpatch.pl is not here (package linux-source): not run"
fi
exit $status
