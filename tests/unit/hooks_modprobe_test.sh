#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# No GFS2 without a gate: what modprobe (kmod's own) does with gfs2-hooks/modprobe.d/graced.conf when the kernel
# asks for fs-gfs2, in a module tree made up here. 77: a tool is missing, skipped.
set -eu
conf=$(readlink -f "$(dirname "$0")/../../gfs2-hooks/modprobe.d")
modprobe=$(PATH=$PATH:/usr/sbin:/sbin command -v modprobe) || {
    echo "no modprobe: skipped"
    exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A made-up tree without modules; the alias that gfs2.ko has is said in a file.
tree=$work/lib/modules/6.0-test
mkdir -p "$tree/kernel" "$work/conf"
for index in order builtin builtin.modinfo; do : >"$tree/modules.$index"; done
"${modprobe%modprobe}depmod" -b "$work" 6.0-test
cp "$conf/graced.conf" "$work/conf"
printf 'alias fs-gfs2 gfs2\nalias fs-xfs xfs\ninstall xfs /bin/true\n' >"$work/conf/aliases.conf"

fail() { echo "$*"; exit 1; }
show() { "$modprobe" -C "$work/conf" -d "$work" -S 6.0-test --show-depends "$1" 2>&1; }

# 1. Whoever asks for the file system by its alias, as the kernel does at a mount, gets our command.
said=$(show fs-gfs2) || true
[[ $said == *"install /sbin/modprobe -a lockd_shim gfs2_gate && exec /sbin/modprobe --ignore-install gfs2"* ]] ||
    fail "modprobe fs-gfs2 does not ask for the gate first: $said"
said=$(show gfs2) || true
[[ $said == *"lockd_shim gfs2_gate"* ]] || fail "modprobe gfs2 does not ask for the gate first: $said"
# Another file system is none of ours.
said=$(show fs-xfs) || true
[ "${said% }" = 'install /bin/true' ] || fail "modprobe fs-xfs is touched: $said"

# 2. The command itself, as modprobe has it run: by sh, with a modprobe that is played.
command=$(sed -n 's/^install gfs2 //p' "$conf/graced.conf")
cat >"$work/modprobe" <<'PLAY'
#!/bin/sh
echo "$*" >>"$PLAYED/calls"
case $* in *gfs2_gate*) exit "$(cat "$PLAYED/gate")" ;; esac
PLAY
chmod +x "$work/modprobe"
command=${command//\/sbin\/modprobe/$work/modprobe} command=${command//\/dev\/kmsg/$work/kmsg}
play() { # exit code of the gate's modprobe
    echo "$1" >"$work/gate"
    : >"$work/calls"
    PLAYED=$work CMDLINE_OPTS='errors=panic' sh -c "$command"
}
play 0 || fail "with a gate gfs2 is not loaded"
[ "$(cat "$work/calls")" = $'-a lockd_shim gfs2_gate\n--ignore-install gfs2 errors=panic' ] || fail "loaded otherwise: $(cat "$work/calls")"
[ ! -e "$work/kmsg" ] || fail "complained for nothing: $(cat "$work/kmsg")"
! play 1 || fail "without a gate the load succeeds"
[ "$(cat "$work/calls")" = '-a lockd_shim gfs2_gate' ] || fail "without a gate: $(cat "$work/calls")"
grep -q 'gfs2 is not loaded' "$work/kmsg" || fail "the kernel's log does not say why"
echo "no GFS2 without a gate"
