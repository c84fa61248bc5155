"""Entity tags: so that nobody overwrites what another has changed meanwhile, nor fetches again what he has (RFC 9110).

The tag of an object is `"STEADY"` or `"STEADY.WHOLE"`. STEADY is of what somebody sets; WHOLE, where there is more, is
of every byte of the answer. If-None-Match compares all of it (section 13.1.2), so a 304 is never a lie. If-Match
compares STEADY alone: the usage of a key moves while its operator thinks, and that is no reason to refuse what he has
decided. A view names what moves of itself in `VOLATILE`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.problems import AdminError
from gatewayd.errors import MALFORMED, PRECONDITION_FAILED

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
# Section 5.6.1: elements may be empty, all of them too. Possessive (`*+`): a row of `, , ,` is read in one way.
_LIST = re.compile(rf"(?:{_TAG.pattern})?(?:[ \t]*+,[ \t]*+(?:{_TAG.pattern})?)*+")
_DIGEST_BYTES = 12  # chance does not repeat it; nobody gains by making it


class Condition:
    """An If-Match. `<Condition "ab12">`"""

    def __init__(self, written: str) -> None:
        self._written = written
        self._steady = {tag.partition(".")[0] for weak, tag in _TAG.findall(written) if not weak}

    def __repr__(self) -> str:
        return f"<Condition {self._written}>"

    def check(self, present: Any) -> None:
        """Raises AdminError if `present`, a view, is not what the client has seen. A weak tag is never it (13.1.1)."""
        if self._written != "*" and _steady(present) not in self._steady:
            detail = "somebody has changed it since it was read: read it again, and decide then"
            raise AdminError(PRECONDITION_FAILED, detail)


def refuse_condition(request: Request) -> None:
    """Raises AdminError if there is one: who believes to be safe by it must not be told that all went well."""
    if condition_of(request) is not None:
        raise AdminError(MALFORMED, "what this changes has no entity tag; leave If-Match out")


def condition_of(request: Request) -> Condition | None:
    """Raises AdminError if it is none."""
    written = _written(request, "If-Match")
    return None if written is None else Condition(written)


def answer_one(request: Request, view: Any, whole: Any = None) -> Response:
    """One object with its tag, or 304. `whole`: what is answered, where that is more than the `view` lists show."""
    shown = answer(view if whole is None else whole)
    steady = _steady(view)
    moves = whole is not None or getattr(view, "VOLATILE", None)
    tag = f'"{steady}.{_digest(bytes(shown.body))}"' if moves else f'"{steady}"'
    if _is_known(request, tag):
        return Response(status_code=304, headers={"etag": tag})
    shown.headers["etag"] = tag
    return shown


def _is_known(request: Request, tag: str) -> bool:
    """By the weak comparison, which is that of If-None-Match."""
    written = _written(request, "If-None-Match")
    return written is not None and (written == "*" or tag.strip('"') in {each for _, each in _TAG.findall(written)})


def _written(request: Request, name: str) -> str | None:
    """Several lines are as one. What is no list of tags is a slip, and must not pass for one that holds or does not."""
    lines = request.headers.getlist(name)
    if not lines:
        return None
    written = ", ".join(lines).strip()
    if written != "*" and _LIST.fullmatch(written) is None:
        raise AdminError(MALFORMED, f'{name} is neither * nor a list of entity tags, each in quotes: "ab12"')
    return written


def _steady(view: Any) -> str:
    volatile: frozenset[str] = getattr(view, "VOLATILE", frozenset())
    if volatile:
        view = {name: value for name, value in msgspec.structs.asdict(view).items() if name not in volatile}
    return _digest(msgspec.json.encode(view))


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
