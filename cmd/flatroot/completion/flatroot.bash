# Completion of flatroot for bash.
_flatroot() {
	local line word=${COMP_LINE:0:COMP_POINT}
	local -a words
	# bash cuts words at colons, which are parts of names: put them together again.
	read -ra words <<<"$word"
	[[ $word == *[[:space:]] ]] && words+=('')
	local current=${words[${#words[@]} - 1]}
	local cut=${current%"${current##*[:=]}"}
	COMPREPLY=()
	while IFS= read -r line; do
		line=${line%%$'\t'*}
		COMPREPLY+=("${line#"$cut"}")
	done < <("${words[0]}" complete-words --progress none -- "${words[@]:1}" 2>/dev/null)
	[[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o default
	# More follows transports and directories.
	[[ ${COMPREPLY[0]-} != *[:/] ]] || compopt -o nospace
}
complete -F _flatroot flatroot
