# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of gracectl for fish: /usr/share/fish/vendor_completions.d/gracectl.fish
function __gracectl_candidates
    set -l program /usr/libexec/graced/gracectl-complete
    set -q GRACED_COMPLETE; and set program $GRACED_COMPLETE
    set -l words (commandline -opc) "$(commandline -ct)"
    for line in ($program $words[2..-1])
        if test "$line" = :files
            __fish_complete_path "$(commandline -ct)"
        else
            echo $line
        end
    end
end
complete -c gracectl -f -a '(__gracectl_candidates)'
