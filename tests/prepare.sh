# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Sourced by tests/demo and tests/all: what a fresh Debian 12 lacks. Packages, the build, the modules.
#
# Packages are installed without a question, and none of their services is started or enabled.
#
# Bad scenario: on a machine that is no cluster node, the installation of corosync starts it with
# Debian's example configuration, and at each boot again; that of nfs-kernel-server starts an NFS
# server. Here a policy-rc.d (deb-systemd-invoke and invoke-rc.d ask it) says no for as long as apt
# runs, and what was not installed before is disabled afterwards. What was installed before, and
# a policy-rc.d that was there before, is left as it is.

policy_file=/usr/sbin/policy-rc.d
policy_mark='# made by graced/tests/prepare.sh for as long as apt runs'
services_of() { # what each package would start; only these are disabled, not those of dependencies
    case $1 in
    corosync) echo corosync.service ;;
    dlm-controld) echo dlm.service ;;
    nfs-kernel-server) echo nfs-server.service nfs-kernel-server.service ;;
    nfs-common) echo nfs-client.target ;;
    rpcbind) echo rpcbind.service rpcbind.socket ;;
    pacemaker) echo pacemaker.service ;;
    pcs) echo pcsd.service pcsd-ruby.service ;;
    prometheus) echo prometheus.service ;;
    esac
}

names_in() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@" | tr -s ' \t' '\n' | sort -u; }

missing_packages() { # LIST...
    local name
    for name in $(names_in "$@"); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
    done
}

install_packages() { # LIST...
    local missing name service log unhinder='' disable=''
    missing=$(missing_packages "$@")
    if [ -z "$missing" ]; then return 0; fi
    # shellcheck disable=SC2086
    echo "installing with apt:" $missing
    if [ "$(id -u)" != 0 ]; then
        echo "this needs root: run it with sudo, or install these packages before" >&2
        return 1
    fi
    for name in $missing; do disable+=" $(services_of "$name")"; done

    # One of ours is left over if an earlier run was killed.
    if [ ! -e "$policy_file" ] || grep -qF "$policy_mark" "$policy_file"; then
        unhinder="rm -f $policy_file"
        # shellcheck disable=SC2064
        trap "$unhinder" EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
        printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$policy_file"
        chmod 755 "$policy_file"
    fi
    log=$(mktemp /tmp/graced-apt.XXXXXX)
    # One broken foreign repository must not stop it: whether apt finds the packages is what counts.
    DEBIAN_FRONTEND=noninteractive apt-get -q update </dev/null >"$log" 2>&1 ||
        echo "apt-get update complained; going on"
    # shellcheck disable=SC2086
    if ! DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        install $missing </dev/null >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "apt could not install them; the whole log is in $log" >&2
        $unhinder
        return 1
    fi
    rm -f "$log"
    $unhinder
    trap - EXIT INT TERM HUP
    for service in $disable; do
        if command -v systemctl >/dev/null; then
            systemctl --quiet disable "$service" 2>/dev/null || true
        else # no systemd yet; one that comes later must not start them either
            update-rc.d "${service%.*}" disable 2>/dev/null || true
        fi
    done
}

# What a build needs: configure if that was never done, then build. Progress is ninja's own.
build_dev() { # [TARGET…]; in the checkout
    : "${GRACED_BUILD:=$PWD/build}"
    export GRACED_BUILD
    local log=$GRACED_BUILD/configure.log
    mkdir -p "$GRACED_BUILD"
    if [ ! -e "$GRACED_BUILD/build.ninja" ] && ! cmake --preset dev -B "$GRACED_BUILD" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        return 1
    fi
    cmake --build "$GRACED_BUILD" --parallel "${GRACED_JOBS:-$(nproc)}" ${1:+--target "$@"} </dev/null
}

# For the newest 6.1 kernel that has headers here: the one that tests/vm boots.
build_modules() {
    local kernel makefile
    kernel=$(printf '%s\n' /lib/modules/6.1.*/build/Makefile | sort -V | tail -n 1)
    kernel=${kernel#/lib/modules/} kernel=${kernel%/build/Makefile}
    if [ ! -e "/lib/modules/$kernel/build/Makefile" ]; then
        echo "no headers of a 6.1 kernel in /lib/modules: apt-get install linux-headers-amd64"
        return 1
    fi
    for makefile in lockd-shim/Makefile gfs2-hooks/gate/Makefile; do
        [ -e "$makefile" ] || continue
        echo "building $(dirname "$makefile") for $kernel"
        make -s -C "$(dirname "$makefile")" KVER="$kernel" </dev/null || return 1
    done
}
