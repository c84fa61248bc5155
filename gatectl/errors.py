"""What can go wrong, and the exit codes that scripts rely on (frozen; SPEC 5).

    GatectlError           1  failed
    ├── MisuseError             2  the command line is wrong, or a confirmation is missing
    ├── NotFoundError           3
    ├── RejectedError           4  conflict or invalid
    ├── NotPermittedError       5
    └── UnreachableError        6  the daemon is

Some codes are results, not errors: 7 of `verify` says that something differs, 8 of `explain` and `key verify` that it
would be refused, 9 of `status` and `doctor` degraded. 130 is Ctrl-C, 141 what a shell shows for a program whose reader
went away (`gatectl key list --all | head`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

OK, FAILED, DIFFERENT, REFUSED, DEGRADED, INTERRUPTED, BROKEN_PIPE = 0, 1, 7, 8, 9, 130, 141


class GatectlError(Exception):
    """One line for stderr: what is wrong and why; then, after a semicolon, what to type next."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.code = ""  # of the problem that it was, if it came from the gateway
        self.field = ""  # of the admin API that it is about
        self.errors: Sequence[Mapping[str, Any]] = ()  # each with a `pointer` into what was sent, and its `detail`

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class MisuseError(GatectlError):
    """The command line cannot be followed as it was typed."""


class NotFoundError(GatectlError):
    """The gateway knows nothing of that name."""


class RejectedError(GatectlError):
    """The gateway refuses a value, or it contradicts what exists."""


class NotPermittedError(GatectlError):
    """This user may not."""


class UnreachableError(GatectlError):
    """No answer from the gateway."""


EXIT_CODES: Mapping[type[GatectlError], int] = {
    GatectlError: FAILED,
    MisuseError: 2,
    NotFoundError: 3,
    RejectedError: 4,
    NotPermittedError: 5,
    UnreachableError: 6,
}


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """What was probably meant."""
    from difflib import get_close_matches  # not for `relay`, which imports this module and no typer

    return next(iter(get_close_matches(name, list(known), 1, likeness)), None)


def exit_code(error: GatectlError) -> int:
    """Of its class, or of the nearest one that it is a kind of."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


# Codes of the admin API's problems; one that is not here is a failure like any other (exit 1).
PROBLEMS: Mapping[str, type[GatectlError]] = {
    "not_found": NotFoundError,
    "conflict": RejectedError,
    "invalid": RejectedError,
    "malformed": RejectedError,
    "precondition_failed": RejectedError,
    "unsupported_media_type": RejectedError,
    "not_permitted": NotPermittedError,
    "unauthenticated": NotPermittedError,
}

# By the word that a sentence has for it: what lists such things.
_LISTS: Mapping[str, str] = {
    **{noun: f"{noun} list" for noun in ("tenant", "service", "route", "plan", "key", "client", "alert", "token")},
    "invoice": "billing invoice list",
    "cycle": "billing cycles",
    "revision": "config history",
}


def from_problem(status: int, problem: Any) -> GatectlError:
    """The error that an answer of 4xx or 5xx stands for."""
    if not isinstance(problem, dict) or "code" not in problem:
        return GatectlError(f"the gateway answered {status}", "is its version the same as 'gatectl --version'?")
    kind = PROBLEMS.get(str(problem["code"]), GatectlError)
    detail = str(problem.get("detail") or problem.get("title") or f"the gateway answered {status}")
    detail = detail if detail.endswith("...") else detail.removesuffix(".")
    error = kind(detail, _hint(kind, detail, problem))
    error.code = str(problem["code"])
    error.field = str(problem.get("field") or "")
    error.errors = problem.get("errors") or ()
    return error


def _hint(kind: type[GatectlError], detail: str, problem: Mapping[str, Any]) -> str:
    if near := problem.get("did_you_mean"):
        return f"did you mean {near!r}?"
    if kind is NotFoundError:
        named = min(_LISTS, key=lambda noun: detail.find(noun) % (len(detail) + 1))
        return f"'gatectl {_LISTS[named]}' shows what there is" if named in detail else ""
    if kind is NotPermittedError:
        return "run it as root, as the user of gatewayd, or as a member of the socket's group"
    if problem.get("code") == "unavailable":
        return "try again in a moment"
    return ""
