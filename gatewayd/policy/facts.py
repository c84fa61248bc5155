"""The facts of a request, read once from its head. Guards decide on them, the proxy writes from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gatewayd.policy.snapshot import Service
    from gatewayd.policy.spending import KeyEntry

CHUNKED: Final = -1  # in place of a body's length: it comes in chunks
UNTIL_CLOSE: Final = -2  # it ends with the connection (responses only)


class Facts:
    """One request. Made by `proxy.head`; what stands below the blank line is filled in as it is judged.

    One object with slots and no initialiser: it is made for every request, and each level of call or object would
    cost more than a guard.
    """

    __slots__ = (
        "body_length", "connection_named", "credential", "expects_continue", "fields", "host",
        "http_1_0", "keep_alive", "kept", "key", "keys", "method", "path", "public_id", "query", "request_id",
        "service",
    )  # fmt: skip

    method: bytes
    path: bytes  # as it came, never decoded
    query: bytes  # with its question mark, or empty
    http_1_0: bool
    host: bytes
    keep_alive: bool
    body_length: int  # bytes, or CHUNKED
    expects_continue: bool
    request_id: bytes | None
    connection_named: tuple[bytes, ...]  # headers that Connection names beside the usual, lower case
    fields: list[tuple[bytes, bytes, bytes]]  # lower name, name, value: were cut out and may yet have to pass
    kept: bytes  # the headers that pass, each beginning with CRLF, and the empty line

    service: Service
    credential: bytes | None
    keys: dict[str, KeyEntry | None]  # the worker's memory; None for a public id that is known not to exist
    public_id: str  # of the key to look up, when a guard has answered NEED_KEY
    key: KeyEntry | None
