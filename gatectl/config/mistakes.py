"""Mistakes of a file, as compilers tell them: `gateway.yaml:12:7: timeout_s must be a number`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gatectl.errors import RejectedError


class Place(NamedTuple):
    """Both count from 1, as editors do."""

    line: int
    column: int


class Mistake(NamedTuple):
    """`place` is None where the whole file is meant."""

    file: str
    place: Place | None
    detail: str
    pointer: str = ""

    def __str__(self) -> str:
        where = f":{self.place.line}:{self.place.column}" if self.place else ""
        return f"{self.file}{where}: {self.detail}"


class MistakenError(RejectedError):
    """A file that cannot be taken as it is. `mistakes` are for whoever wants all of them."""

    def __init__(self, mistakes: Iterable[Mistake], more: bool = False) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: (mistake.file, mistake.place or Place(0, 0)))
        self.more = more  # than the gateway tells at once
        count = len(self.mistakes)
        files = ", ".join(dict.fromkeys(mistake.file for mistake in self.mistakes))
        many = "1 mistake" if count == 1 else f"{count}{' or more' if more else ''} mistakes"
        super().__init__(f"{files} {'has' if ',' not in files else 'have'} {many}", "nothing was done")
