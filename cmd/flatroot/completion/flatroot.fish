# Completion of flatroot for fish.
function __flatroot_words
    set -l words (commandline -opc) (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    $program complete-words --progress none -- $words 2>/dev/null
end
complete -c flatroot -a '(__flatroot_words)'
