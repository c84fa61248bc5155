"""What the example APIs have in common: a collection of numbered things, a few odd paths, and a count of requests.

GET  /            the things, in pages: ?limit=20&after=40 -> {"items": [...], "next": 60}
GET  /42          one of them
POST /            a new one
ANY  /echo        the request as it arrived
GET  /slow?ms=500 an answer after a while
GET  /fail?status=503
GET  /_count      the requests served so far; does not count itself
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Item = dict[str, Any]
Endpoint = Callable[[Request], Awaitable[Response]]

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
PAGE_LIMIT = 100
SLOWEST_MS = 60_000


class RefusedError(ValueError):
    """What the caller sent cannot become a new thing; the message says why."""


class Collection:
    """Things under their numbers, and the endpoints that read and extend them."""

    def __init__(self, items: list[Item], make: Callable[[int, Item], Item]) -> None:
        self._items = {item["id"]: item for item in items}
        self._make = make

    async def page(self, request: Request) -> Response:
        limit = _number(request, "limit", default=20, least=1, most=PAGE_LIMIT)
        after = _number(request, "after", default=0, least=0, most=1 << 31)
        found = [item for number, item in self._items.items() if number > after][: limit + 1]
        more = found[limit - 1]["id"] if len(found) > limit else None
        return JSONResponse({"items": found[:limit], "next": more})

    async def one(self, request: Request) -> Response:
        item = self._items.get(request.path_params["number"])
        return JSONResponse(item) if item else _error(404, "there is nothing under this number")

    async def create(self, request: Request) -> Response:
        try:
            sent = json.loads(await request.body())
            if not isinstance(sent, dict):
                raise RefusedError("the body must be a JSON object")
            item = self._make(len(self._items) + 1, sent)
        except (ValueError, KeyError, TypeError) as error:
            return _error(422 if isinstance(error, RefusedError) else 400, str(error) or "the body is not understood")
        self._items[item["id"]] = item
        return JSONResponse(item, 201)


class Counted:
    """ASGI middleware that counts answers by status, except those of `/_count`."""

    def __init__(self, app: ASGIApp, counts: Counter[int]) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts[message["status"]] += 1
            await send(message)

        counted = scope["type"] == "http" and scope["path"] != "/_count"
        await self._app(scope, receive, counting if counted else send)


def collection_app(items: list[Item], make: Callable[[int, Item], Item]) -> ASGIApp:
    """An API over `items`; `make(number, sent)` turns a POSTed object into a new item or raises RefusedError."""
    things, counts = Collection(items, make), Counter[int]()

    async def count(_: Request) -> Response:
        return JSONResponse({"requests": counts.total(), "statuses": {str(k): counts[k] for k in sorted(counts)}})

    app = Starlette(
        routes=[
            Route("/", things.page),
            Route("/", things.create, methods=["POST"]),
            Route("/{number:int}", things.one),
            Route("/echo", echo, methods=METHODS),
            Route("/slow", slow),
            Route("/fail", fail),
            Route("/_count", count),
        ]
    )
    return Counted(app, counts)


async def echo(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.scope["raw_path"].decode("latin-1"),
            "query": request.scope["query_string"].decode("latin-1"),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
            "length": len(body),
            "body": body[:4096].decode("utf-8", "replace"),
        }
    )


async def slow(request: Request) -> Response:
    waited_ms = _number(request, "ms", default=1000, least=0, most=SLOWEST_MS)
    await asyncio.sleep(waited_ms / 1000)
    return JSONResponse({"waited_ms": waited_ms})


async def fail(request: Request) -> Response:
    return _error(_number(request, "status", default=500, least=400, most=599), "this path always fails")


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _number(request: Request, name: str, *, default: int, least: int, most: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and least <= int(given[:12]) <= most):
        raise HTTPException(400, f"{name} must be a number from {least} to {most}")
    return int(given)
