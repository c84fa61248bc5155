"""From the list of operations to routes: one an address, which knows all its methods.

With a route for each operation the next one is asked where a method does not fit: `PATCH /v1/keys/import`, which is
nobody's, would be taken for a change of the key `import`, and `Allow` would name what one route answers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gatewayd.control.admin.operations import Operation
from gatewayd.errors import METHOD_NOT_ALLOWED


class Address:
    """Answers each of its methods by the handler of that. `<Address GET, HEAD, POST>`"""

    def __init__(self, path: str, handlers: dict[str, Callable[..., Any]]) -> None:
        self._apps = {method: Route(path, handler).app for method, handler in handlers.items()}
        if "GET" in self._apps:
            self._apps["HEAD"] = self._apps["GET"]
        self._allowed = ", ".join(sorted(self._apps))

    def __repr__(self) -> str:
        return f"<Address {self._allowed}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._apps.get(scope["method"])
        if app is None:
            raise HTTPException(METHOD_NOT_ALLOWED.status, headers={"Allow": self._allowed})
        await app(scope, receive, send)


def routes_of(operations: Iterable[Operation]) -> list[Route]:
    """In the order of the list: an address that has a name comes before one that has a parameter there."""
    handlers: dict[str, dict[str, Callable[..., Any]]] = {}
    for operation in operations:
        handlers.setdefault(operation.path, {})[operation.method] = operation.handler
    return [Route(path, Address(path, own)) for path, own in handlers.items()]
