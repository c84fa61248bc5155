# Completion of gatectl for bash 3.2 and later, with or without bash-completion.
# `gatectl completion install bash` puts it where bash looks; or: source <(gatectl completion bash)

_gatectl() {
    local line program=${COMP_WORDS[0]} kind=
    [[ $program == "~/"* ]] && program=$HOME/${program:2}
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ -z $kind ]]; then
            kind=$line
        else
            COMPREPLY[${#COMPREPLY[@]}]=$line
        fi
    done < <(_GATECTL_COMPLETE=bash "$program" "${COMP_LINE:0:$COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    # bash 3.2, as macOS has it, knows no compopt: there files complete without a space or a slash behind them.
    case $kind in
        "names nospace") compopt -o nospace 2>/dev/null ;;
        files) compopt -o default 2>/dev/null || COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")) ;;
        folders) compopt -o dirnames 2>/dev/null || COMPREPLY=($(compgen -d -- "${COMP_WORDS[COMP_CWORD]}")) ;;
    esac
}

complete -F _gatectl gatectl
