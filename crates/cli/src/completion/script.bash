# Completion of @PROGRAM@ for bash: source <(@PROGRAM@ completion bash)
_@NAME@_complete() {
    local line=${COMP_LINE:0:COMP_POINT} words current kept answer candidate
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    mapfile -t answer < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    COMPREPLY=()
    ((${#answer[@]})) || return
    # Of `--flag=value` the value alone is asked for.
    [[ $current == -*=* ]] && current=${current#*=}
    # Bash splits words at colons as well, and replaces what stands behind the last one.
    kept=
    [[ $current == *:* ]] && kept=${current%:*}:
    for candidate in "${answer[@]:0:${#answer[@]}-1}"; do
        candidate=${candidate%%$'\t'*}
        [[ $candidate == "$current"* ]] && COMPREPLY+=("${candidate#"$kept"}")
    done
    # The last line says whether a file may stand here.
    if [[ ${answer[-1]} == :0 ]] && ((!${#COMPREPLY[@]})); then
        compopt -o default 2>/dev/null
    fi
    return 0
}
complete -F _@NAME@_complete @PROGRAM@
