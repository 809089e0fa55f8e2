#compdef gracectl
# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of gracectl for zsh: /usr/share/zsh/vendor-completions/_gracectl
local line
local -a candidates
while IFS= read -r line; do
    if [[ $line == :files ]]; then
        _files
    else
        candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    fi
done < <("${GRACED_COMPLETE:-/usr/libexec/graced/gracectl-complete}" "${(@)words[2,CURRENT]}")
(( ! $#candidates )) || _describe gracectl candidates
