# Completion of gatectl for fish 3.1 and later. `gatectl completion install fish` puts it where fish looks;
# or: gatectl completion fish | source

function __gatectl_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    # Of a word whose quote is open there is nothing to take off but that quote.
    set -l word (string unescape -- $typed 2>/dev/null; or string trim --left --chars '\'"' -- "$typed")
    set -l lines (_GATECTL_COMPLETE=fish $words[1] $words[2..-1] "$word" 2>/dev/null)
    set -l before (string match --regex '^--[^=]*=' -- "$word")
    switch "$lines[1]"
        case files
            printf "$before%s\n" (__fish_complete_path (string replace -- "$before" '' "$word"))
        case folders
            printf "$before%s\n" (__fish_complete_directories (string replace -- "$before" '' "$word"))
        case '*'
            test (count $lines) -gt 1; and printf '%s\n' $lines[2..-1]
    end
end

complete --command gatectl --no-files --keep-order --arguments '(__gatectl_complete)'
