"""From the list of operations to routes: one an address, which knows all its methods.

With a route for each operation the next one is asked where a method does not fit: `PATCH /v1/keys/import`, which is
nobody's, would be taken for a change of the key `import`, and `Allow` would name what one route answers alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gatewayd.control.admin.operations import Operation
from gatewayd.control.admin.tags import refuse_condition
from gatewayd.errors import METHOD_NOT_ALLOWED, NOT_FOUND


class Address:
    """Answers each of its methods by the handler of that. `<Address GET, HEAD, POST>`

    And only whom admission has let in to that very operation. Both look for it by themselves, and where they differed
    (as over "/v1/tokens%0A", for `$` also stands before a last line end) a request would come here as one for nothing,
    which takes no role.
    """

    def __init__(self, path: str, operations: dict[str, Operation]) -> None:
        self._apps = {
            method: (Route(path, operation.handler).app, operation) for method, operation in operations.items()
        }
        if "GET" in self._apps:
            self._apps["HEAD"] = self._apps["GET"]
        self._allowed = ", ".join(sorted(self._apps))

    def __repr__(self) -> str:
        return f"<Address {self._allowed}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._apps.get(scope["method"])
        if found is None:
            raise HTTPException(METHOD_NOT_ALLOWED.status, headers={"Allow": self._allowed})
        app, operation = found
        if scope["state"]["operation"] is not operation:
            raise HTTPException(NOT_FOUND.status)
        said = operation.said
        if said is not None and operation.method != "GET" and not said.changes_one:
            refuse_condition(Request(scope))
        await app(scope, receive, send)


def routes_of(operations: Iterable[Operation]) -> list[Route]:
    """In the order of the list: an address that has a name comes before one that has a parameter there."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, Address(path, own)) for path, own in by_path.items()]
