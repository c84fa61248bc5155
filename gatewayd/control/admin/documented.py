"""What the document of the admin API says of a handler, written where the handler is.

`openapi` makes `/openapi.json` of it. The Structs are those that handlers read requests with, and views of what they
answer. Views that only describe are held to the truth by the tests: whatever the admin API answers in any of them is
compared with its schema.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from gatewayd.errors import Problem

JSON = "application/json"
NDJSON = "application/x-ndjson"

Handler = TypeVar("Handler", bound=Callable[..., Any])
Item = TypeVar("Item")


class Page(msgspec.Struct, Generic[Item]):
    """`next` is what `after` takes for the page behind this one; null: it was the last."""

    items: list[Item]
    next: str | None


class Items(msgspec.Struct, Generic[Item]):
    """A list that comes whole."""

    items: list[Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """`query`, `body` and `answer` are types. `rules`: what a schema cannot say, for which 422 is answered too.

    `shows_one`: it answers with one object, which has an ETag. `changes_one`: it takes If-Match. `also`: problems that
    do not follow from the rest. `lines`: the answer is a stream, and these are the types of its lines.
    """

    summary: str
    query: Any = None
    body: Any = None
    body_optional: bool = False
    takes: tuple[str, ...] = (JSON,)
    answer: Any = None
    lines: tuple[Any, ...] = ()
    status: int = 200
    media: str = JSON
    rules: str = ""
    also: tuple[Problem, ...] = ()
    shows_one: bool = False
    changes_one: bool = False
    path: dict[str, dict[str, Any]] | None = None


_SAID: dict[Callable[..., Any], Said] = {}


def documented(summary: str, **more: Any) -> Callable[[Handler], Handler]:
    """Of the handler that follows. Its docstring becomes the description."""
    said = Said(summary=summary, **more)

    def note(handler: Handler) -> Handler:
        _SAID[handler] = said
        return handler

    return note


def said_of(handler: Callable[..., Any]) -> Said | None:
    return _SAID.get(handler)
