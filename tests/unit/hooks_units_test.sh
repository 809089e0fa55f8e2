#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# systemd understands the units: no unknown setting, no cycle, nothing to complain of.
set -eu
cd "$(dirname "$0")/../../systemd"
command -v systemd-analyze >/dev/null || {
    echo "no systemd-analyze: skipped"
    exit 77
}
copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT
# The programs may not be installed; an instance stands for the template.
for unit in *.service *.timer; do
    sed -E 's,^(Exec[A-Za-z]*=[-+]*)/usr/sbin/[^ ]+,\1/bin/true,' "$unit" >"$copies/${unit/@./@vs1.}"
done
# The drop-in for Debian's nfs-server.service, with nothing of that but what the drop-in adds to.
printf '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/true\n' >"$copies/nfs-server.service"
mkdir "$copies/nfs-server.service.d"
sed -E 's,^(Exec[A-Za-z]*=)/usr/sbin/[^ ]+,\1/bin/true,' nfs-server.service.d/graced.conf >"$copies/nfs-server.service.d/graced.conf"
said=$(SYSTEMD_UNIT_PATH=$copies: systemd-analyze verify --man=no --recursive-errors=no "$copies"/*.service "$copies"/*.timer 2>&1) || true
[ -z "$said" ] || {
    echo "$said"
    exit 1
}
# An orderly stop of the node's own nfsd: all nodes enforce, then it lets go of its locks, then it is given up; a step that
# fails ends the stop.
steps=$(sed -n 's/^ExecStop=//p' nfs-server.service.d/graced.conf | tr '\n' ';')
[ "$steps" = ';/usr/sbin/gracectl server-stop %H;/usr/sbin/rpc.nfsd 0;/usr/sbin/gracectl server-released %H;' ] || {
    echo "nfs-server.service.d/graced.conf stops nfsd in another order: $steps"
    exit 1
}
# Who makes the DLM's first lockspace in this node lends its sockets the control group: no filter there.
! grep -E '^(IPAddress(Deny|Allow)|IP(In|E)gressFilterPath|PrivateNetwork|SocketBind|RestrictNetworkInterfaces)' graced.service graced-dlm.service || {
    echo "the DLM's sockets would be filtered"
    exit 1
}
# Looser than this only on purpose.
for limit in graced.service=30 graced-dlm.service=25 graced-metrics.service=35; do
    systemd-analyze security --offline=yes --threshold="${limit#*=}" "$copies/${limit%=*}" >/dev/null ||
        { echo "${limit%=*}: exposure above ${limit#*=}"; exit 1; }
done
