#compdef flatroot
# Completion of flatroot for zsh.
_flatroot() {
	local line
	local -a answers
	for line in "${(@f)$("${words[1]}" complete-words --progress none -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		[[ -n $line ]] || continue
		line=${line//:/\\:}
		answers+=("${line/$'\t'/:}")
	done
	if ((${#answers})); then
		_describe flatroot answers
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
