"""Colours of text on a terminal: few, by what they mean, and readable on light and on dark ground.

The eight old colours are whatever a terminal makes of them: xterm's yellow on white has a contrast of 1.7 to 1. Where
there are 256, ones are taken that have at least 3.8 to 1 on black and on white; a test computes it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO

# By meaning: of 256 colours, and of 8.
PALETTE: Mapping[str, tuple[int, int]] = {
    "good": (28, 32),  # green
    "ill": (160, 31),  # red
    "warn": (130, 33),  # amber
    "other": (30, 36),  # cyan
}
# Words that want an eye; every other word is left in the terminal's own colour.
WORDS: Mapping[str, str] = {
    "active": "good", "ok": "good", "serving": "good", "pass": "good", "healthy": "good",
    "expired": "warn", "warning": "warn", "failing": "warn", "draining": "warn", "half-open": "warn",
    "revoked": "ill", "degraded": "ill", "gone": "ill", "suspended": "ill", "refuse": "ill", "fail": "ill",
    "failed": "ill", "disabled": "ill", "unhealthy": "ill", "ejected": "ill", "open": "ill",
}  # fmt: skip


def many(environment: Mapping[str, str]) -> bool:
    """Whether a terminal has 256 colours."""
    return "256color" in environment.get("TERM", "") or environment.get("COLORTERM", "") in ("truecolor", "24bit")


def wanted(stream: TextIO | None = None) -> bool:
    """Whether this stream (standard output) shows colours, and its user wants them."""
    return (stream or sys.stdout).isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


class Colours:
    """SGR codes by meaning, as a stream (standard output) shows them; all empty where it is to have none."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.on = wanted(stream)
        self._column = 0 if many(os.environ) else 1
        self.bold = "1" if self.on else ""

    def code(self, meaning: str) -> str:
        codes = PALETTE.get(meaning) if self.on else None
        if codes is None:
            return ""
        return f"38;5;{codes[0]}" if self._column == 0 else str(codes[1])

    def of_word(self, word: str) -> str:
        return self.code(WORDS.get(word, ""))


def painted(text: str, sgr: str) -> str:
    return f"\x1b[{sgr}m{text}\x1b[0m" if sgr and text else text


def bold(text: str) -> str:
    return painted(text, "1" if wanted() else "")
