# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Completion of gracectl for bash: /usr/share/bash-completion/completions/gracectl
_gracectl() {
    local word current=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        if [ "$word" = :files ]; then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
        elif [[ $word == "$current"* ]]; then
            COMPREPLY+=("$word")
        fi
    done < <("${GRACED_COMPLETE:-/usr/libexec/graced/gracectl-complete}" "${COMP_WORDS[@]:1:COMP_CWORD}")
}
complete -F _gracectl gracectl
