#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of gracectl: what each shell offers, with the true gracectl's --help and a stand-in for its
# daemon. Argument: where the programs are (default build/bin). 77: a shell is missing, skipped.
set -eu
root=$(readlink -f "$(dirname "$0")/../..")
programs=$(readlink -f "${1:-$root/build/bin}")
here=$root/graced/ctl/completion
[ -x "$programs/gracectl" ] || { echo "no gracectl in $programs"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
# The lists as gracectl prints them; everything else it says itself.
cat >"$work/bin/gracectl" <<STAND_IN
#!/bin/bash
case "\$*" in
*'--json servers') printf '{\n  "ok": true,\n  "servers": [\n    {\n      "host": 1,\n      "name": "vs1",\n      "need": false\n    },\n    {\n      "name": "vs-two"\n    }\n  ]\n}\n' ;;
*'--json nodes') printf '{\n  "nodes": [\n    {\n      "name": "node1"\n    }\n  ],\n  "ok": true\n}\n' ;;
'config show') exec "$programs/gracectl" config show "$work/graced.conf" ;;
*) exec "$programs/gracectl" "\$@" ;;
esac
STAND_IN
chmod +x "$work/bin/gracectl"
printf '[server.vs9]\naddresses = ["192.0.2.9/24"]\ninterface = eth0\n' >"$work/graced.conf"
export PATH=$work/bin:$PATH GRACED_COMPLETE=$here/gracectl-complete
export GRACED_COMPLETE_SECONDS=60 # on a busy machine, too

failed=0 passed=0
# expect SHELL 'words of the line' 'what is offered'; a line that ends with a space asks for the next word.
expect() {
    local got
    got=$("in_$1" "$2" | LC_ALL=C sort | tr '\n' ' ')
    if [ "$got" = "$3 " ] || [ "$got$3" = '' ]; then
        passed=$((passed + 1))
    else
        echo "$1: gracectl $2: offered '$got', not '$3'"
        failed=$((failed + 1))
    fi
}

in_bash() {
    bash --norc -uc '
        . "$1"
        read -ra COMP_WORDS <<<"gracectl $2"
        case $2 in "" | *" ") COMP_WORDS+=("") ;; esac
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _gracectl
        [ ${#COMPREPLY[@]} = 0 ] || printf "%s\n" "${COMPREPLY[@]}"
    ' bash "$here/gracectl.bash" "$1"
}

# The two functions of zsh that it calls say here what they are given.
in_zsh() {
    zsh -fc '
        _files() { print -l -- *$words[CURRENT]*(N) }
        _describe() { local it; for it in "${(@P)2}"; do it=${it%%:*}; [[ $it != $words[CURRENT]* ]] || print -r -- $it; done }
        complete_it() { local -a words; local CURRENT; words=(gracectl ${=2}); [[ $2 != (|*" ") ]] || words+=(""); CURRENT=$#words; . $1 }
        complete_it "$@"
    ' zsh "$here/gracectl.zsh" "$1"
}

# shellcheck disable=SC2016 # expanded by fish
in_fish() { HOME=$work fish --no-config -c 'source $argv[1]; complete -C "gracectl $argv[2]"' "$here/gracectl.fish" "$1" | cut -f 1; }

cd "$work"
# `#compdef` has to be a file's first line for zsh to load it.
[ "$(head -n 1 "$here/gracectl.zsh")" = '#compdef gracectl' ] || { echo "gracectl.zsh: no #compdef"; failed=$((failed + 1)); }
missing=''
for shell in bash zsh fish; do
    command -v "$shell" >/dev/null || {
        missing+=" $shell"
        continue
    }
    expect "$shell" 'st' 'start status'
    expect "$shell" 'config ' 'check server show'
    expect "$shell" 'lift ' 'vs-two vs1'
    expect "$shell" 'lift vs1 ' ''
    expect "$shell" 'clients --n' '--not-reclaimed'
    expect "$shell" 'config check graced.c' 'graced.conf'
done
# What the shells ask is one program: the rest by one of them.
expect bash 'wait ' 'entering lifting normal reclaiming'
expect bash 'bypass o' 'off on'
expect bash 'config server v' 'vs9'
expect bash '--json --ipc other lift vs1' 'vs1'
expect bash 'fence-notify ' 'node1'
expect bash 'bypass on --node ' 'node1'
expect bash 'migrate vs1 ' 'node1'
expect bash 'doctor --w' '--with'
expect bash 'clients --server ' 'vs-two vs1'
expect bash 'clients --server vs1 --sort a' 'address'
expect bash 'mounts --r' '--rmtab'
expect bash 'history --sv' '--svg'
expect bash 'history --svg graced.c' 'graced.conf'
expect bash 'watch --in' '--interval'
expect bash 'history ' ''
expect bash 'metrics --textfile graced.c' 'graced.conf'
expect bash 'wait normal --timeout ' ''
expect bash 'import --from graced.c' 'graced.conf'
# Every verb that --help names, from the help itself.
verbs=$("$programs/gracectl" --help | sed -n '/^Subcommands:/,/^$/s/^  \([a-z-]*\) .*/\1/p' | LC_ALL=C sort | tr '\n' ' ')
expect bash '' "${verbs% }"
if command -v shellcheck >/dev/null; then
    shellcheck "$here/gracectl-complete" "$here/gracectl.bash" "$root/tests/unit/docs_completion_test.sh" || failed=$((failed + 1))
fi
echo "$passed lines completed, $failed wrong"
[ "$failed" = 0 ] || exit 1
[ -z "$missing" ] || {
    echo "skipped: there is no$missing"
    exit 77
}
