"""Names in place of row numbers, looked up many at a time and remembered, for answers of very many lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import Connection

from gatewayd.control.usage import Names, client_names, key_names, name_of, route_names, service_names, tenant_names

_KINDS: Mapping[str, Callable[[Connection, Iterable[int]], Names]] = {
    "tenant": tenant_names,
    "service": service_names,
    "route": route_names,
    "key": key_names,
    "client": client_names,
}
KINDS = tuple(_KINDS)
_REMEMBERED = 20_000  # of each kind: 4 MiB


class NameBook:
    """What tenants, services, routes, keys and clients are called, those that were removed too."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, Names] = {kind: {} for kind in KINDS}

    def learn(self, kind: str, numbers: set[int]) -> None:
        """Ask once for all of these that are not known."""
        known = self._known[kind]
        if not (unknown := numbers - known.keys() - {0}):
            return
        if len(known) > _REMEMBERED:
            known.clear()
            unknown = numbers - {0}
        known.update(dict.fromkeys(unknown, ""))  # what has no name is not asked for again
        known.update(_KINDS[kind](self._connection, unknown))

    def of(self, kind: str, number: int) -> str:
        """`-` for none, the number for what has no name."""
        return name_of(self._known[kind], number)
