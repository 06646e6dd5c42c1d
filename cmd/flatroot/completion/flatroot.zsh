#compdef flatroot
# Completion of flatroot for zsh.
_flatroot() {
	local line
	local -a answers unfinished
	for line in "${(@f)$("${words[1]}" complete-words --progress none -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		[[ -n $line ]] || continue
		line=${line//:/\\:}
		# More follows transports and directories.
		if [[ ${line%%$'\t'*} == *[:/] ]]; then
			unfinished+=("${line/$'\t'/:}")
		else
			answers+=("${line/$'\t'/:}")
		fi
	done
	if ((${#answers} + ${#unfinished})); then
		if ((${#answers})); then
			_describe flatroot answers
		fi
		if ((${#unfinished})); then
			_describe flatroot unfinished -S ''
		fi
	else
		_files
	fi
}
# As a file in fpath this is the function itself, sourced it only defines it.
if [[ ${funcstack[1]} == _flatroot ]]; then
	_flatroot "$@"
else
	compdef _flatroot flatroot
fi
