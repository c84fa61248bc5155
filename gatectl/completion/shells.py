"""How each shell is told what completes a word.

The first line of an answer says what the others are: `names` (and `names nospace`, where a comma may follow), or that
the shell may offer its own `files` or `folders`. bash gets what it can put into the line as it is, zsh and fish a text
and what it is about.

bash alone hands over the line as it was typed, since it has its own idea of a word: what `COMP_WORDBREAKS` holds (`:`
and `=`) ends one, so of `http://a` it replaces what is behind the last colon. So the line is read here by the rules of
the shell, and an answer leaves out what bash takes for another word.
"""

from __future__ import annotations

from gatectl.completion.line import Wanted, read
from gatectl.completion.sources import FILES
from gatectl.completion.table import ROOT, SHARED

_SPECIAL = frozenset(" \t\n\"'\\$`!&;|<>()[]{}*?#~^=:@,")
_NEED_NO_ESCAPE = frozenset("=:@,")  # in the middle of a word they mean nothing to bash itself
_LONGEST_ABOUT = 72


def answer(shell: str, words: list[str]) -> str:
    """What the script of this shell prints: nothing where nothing is known."""
    if shell == "bash":
        return _for_bash("".join(words[:1]), "".join(words[1:2]))
    if shell not in ("zsh", "fish"):
        return ""
    wanted = read(words, ROOT, SHARED)
    lines = [f"{_told(text, shell)}\t{about}" if about else _told(text, shell) for text, about in offers(wanted)]
    return _answer(wanted, lines)


def offers(wanted: Wanted) -> list[tuple[str, str]]:
    """The whole words that complete what was typed, each once; texts that a terminal would obey are left out."""
    found = wanted.offers
    if wanted.kind and wanted.kind not in FILES:
        from gatectl.completion import names  # the only one that asks somebody

        try:
            found = [*found, *names.values(wanted.kind, wanted.typed, wanted.options)]
        except Exception:
            found = [*found]  # what is wrong with the gateway is for `gatectl status` to say
    fitting = {
        text: " ".join("".join(letter if letter.isprintable() else " " for letter in about).split())[:_LONGEST_ABOUT]
        for text, about in found
        if text.startswith(wanted.typed) and text not in wanted.given and text.isprintable()
    }
    return [(wanted.before + text, about) for text, about in fitting.items()]


def _answer(wanted: Wanted, lines: list[str]) -> str:
    if wanted.kind in FILES:
        return f"{wanted.kind}s\n"
    return "\n".join(["names nospace" if wanted.goes_on else "names", *lines, ""]) if lines else ""


def _told(text: str, shell: str) -> str:
    """zsh splits a text from what it is about at a colon."""
    return text.replace("\\", "\\\\").replace(":", "\\:") if shell == "zsh" else text


def _for_bash(line: str, breaks: str) -> str:
    words, raw, opened = split(line)
    wanted = read(words[1:], ROOT, SHARED)
    if opened is None:
        lead = _lead(raw, breaks)
        return _answer(wanted, [_escaped(text[lead:]) for text, _ in offers(wanted)])
    # bash replaces what is behind the quote, and closes it.
    lead = len(split(raw[:opened])[0][-1])
    return _answer(wanted, [_within(raw[opened], text[lead:]) for text, _ in offers(wanted)])


def split(line: str) -> tuple[list[str], str, int | None]:
    """Words of a line as bash reads them; the last one as it was typed, and where in that a quote is open."""
    words, word, raw, within = [], "", "", False
    quote, opened = "", None
    letters = iter(line)
    for letter in letters:
        if not quote and letter in " \t\n":
            if within:
                words.append(word)
            word, raw, within = "", "", False
            continue
        within = True
        raw += letter
        if letter == "\\" and quote != "'":
            escaped = next(letters, "")
            raw += escaped
            word += escaped if not quote or escaped in '"\\$`' else letter + escaped
        elif letter == quote:
            quote, opened = "", None
        elif not quote and letter in "\"'":
            quote, opened = letter, len(raw) - 1
        else:
            word += letter
    return [*words, word], raw, opened


def _lead(raw: str, breaks: str) -> int:
    """How much of the last word bash takes for words of their own: up to the last break that is not quoted."""
    lead = 0
    for place, letter in enumerate(raw):
        if letter in breaks and letter not in " \t\n\"'" and not raw[:place].endswith("\\"):
            before, _, opened = split(raw[: place + 1])
            lead = lead if opened is not None else len(before[-1])
    return lead


def _within(quote: str, text: str) -> str:
    """In a quote that is open: a name must neither end it nor be obeyed, as `$(...)` would be behind a `"`."""
    if quote == "'":
        text = text.replace("'", "'\\''")
    else:
        text = "".join(f"\\{letter}" if letter in '"\\$`' else letter for letter in text)
        text = text.replace("!", '"\\!"')  # of history, which only a backslash outside of quotes keeps off
    return text + quote * text.endswith(quote)  # readline takes that for the end, and would close it no more


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in _SPECIAL and letter not in _NEED_NO_ESCAPE else letter for letter in text)
