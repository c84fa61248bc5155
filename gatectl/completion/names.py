"""Names from the gateway, as long as somebody waits for them: a deadline over everything, no answer is no names.

Not `client.Gateway`: that one explains what is wrong, which nobody wants to read in the middle of a line, and the
`urllib` and httptools that it needs cost as much as all of this.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from time import monotonic

from gatectl.completion.sources import CONTEXTS, FIXED, IN_TENANT, LISTED, NAMED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# 100 ms are what a person does not notice, and the interpreter starts in some ten of them.
DEADLINE_S = 0.08
# Elsewhere: TLS takes as long to import alone. Without an answer by then one goes on typing.
ELSEWHERE_DEADLINE_S = 0.3
MOST_NAMES = 200  # as many as a person may read through
_MOST_BYTES = 1 << 20
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def values(kind: str, typed: str, options: Mapping[str, str]) -> list[tuple[str, str]]:
    """Values of a kind that begin as typed, with what tells each from others."""
    if kind in FIXED:
        return [(value, "") for value in FIXED[kind] if value.startswith(typed)]
    if kind == CONTEXTS:
        return _contexts()
    if kind in NAMED:
        asked = {"of": kind, "starts_with": typed, "limit": str(MOST_NAMES), **_tenant(options)}
        return _named(_items("/v1/names", asked, options), typed)
    if kind in LISTED:
        path, name, about = LISTED[kind]
        asked = {"limit": "1000", **(_tenant(options) if kind in IN_TENANT else {})}
        return [(str(item[name]), str(item.get(about) or "")) for item in _items(path, asked, options)]
    return []


def _named(items: list[dict[str, Any]], typed: str) -> list[tuple[str, str]]:
    """By name where that says which one is meant; by id where it has none or shares it, or where an id is typed."""
    names = [item["name"] for item in items]
    found = []
    for item in items:
        name, public_id, about = item["name"], item["id"], item["about"]
        unclear = not name or names.count(name) > 1
        if name and not unclear and name.startswith(typed):
            found.append((name, ", ".join(filter(None, (public_id if public_id.startswith("gw_") else "", about)))))
        if public_id and (unclear or typed) and public_id.startswith(typed):
            found.append((public_id, ", ".join(filter(None, (name, about)))))
    return found


def _tenant(options: Mapping[str, str]) -> dict[str, str]:
    return {"tenant": options["--tenant"]} if options.get("--tenant") else {}


def _items(path: str, asked: Mapping[str, str], options: Mapping[str, str]) -> list[dict[str, Any]]:
    socket_path = _socket_path(options)
    target = f"{path}?{_query(asked)}"
    answer = json.loads(_get(socket_path, target)) if socket_path else _ask_elsewhere(path, asked, options)
    items: list[dict[str, Any]] = answer["items"]
    return items


def _socket_path(options: Mapping[str, str]) -> str:
    """The socket that the command would use, "" for a gateway elsewhere: `destination.choose`, without its imports."""
    given = [options.get(f"--{way}", "") for way in ("url", "context", "socket")]
    url, context, path = given if any(given) else [os.environ.get(f"GATECTL_{way}", "") for way in _WAYS]
    if url:
        return ""
    if path and not context:
        return path
    from gatectl.places import default_socket

    if context == "local":
        return os.environ.get("GATECTL_SOCKET") or default_socket()
    known = _known_contexts()
    return default_socket() if (context or known.get("current") or "local") == "local" else ""


_WAYS = ("URL", "CONTEXT", "SOCKET")


def _ask_elsewhere(path: str, asked: Mapping[str, str], options: Mapping[str, str]) -> Any:
    """By the client that commands have, in a thread that is left behind when it is late.

    Not through ssh, which may ask for a password, and not with a token that would have to be typed.
    """
    from threading import Thread
    from types import SimpleNamespace

    from gatectl.client import Gateway
    from gatectl.destination import choose

    names = ("url", "context", "socket", "token-file", "ca")
    given = SimpleNamespace(**{name.replace("-", "_"): options.get(f"--{name}") for name in names})
    if given.token_file == "-":  # noqa: S105 (standard input)
        raise ValueError("a token would be read from the terminal")
    there = choose(given, os.environ)
    if not there.transport.place.startswith("http"):
        raise ValueError("not one that only answers")
    found: list[Any] = []

    def ask() -> None:
        with suppress(Exception):
            found.append(Gateway(there.transport, there.token).get(path, asked))

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ELSEWHERE_DEADLINE_S)
    return found[0]


def _get(path: str, target: str) -> bytes:
    """The body of an answer that is complete and says 200. Everything else is an error, which ends in silence."""
    until = monotonic() + DEADLINE_S
    received = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(DEADLINE_S)
        connection.connect(path)
        request = f"GET {target} HTTP/1.1\r\nHost: gatewayd\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode("ascii"))
        while len(received) <= _MOST_BYTES:
            connection.settimeout(max(until - monotonic(), 0.001))
            part = connection.recv(65536)
            if not part:
                return _body(received)
            received += part
            if monotonic() > until:
                break
    raise TimeoutError


def _body(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *fields = head.lower().split(b"\r\n")
    lengths = [field.partition(b":")[2].strip() for field in fields if field.startswith(b"content-length:")]
    if first.split(b" ")[1] != b"200" or lengths != [b"%d" % len(body)]:
        raise ValueError("not a whole answer")
    return body


def _query(asked: Mapping[str, str]) -> str:
    return "&".join(f"{name}={_quoted(value)}" for name, value in asked.items())


def _quoted(text: str) -> str:
    octets = text.encode("utf-8", "surrogateescape")
    return "".join(chr(octet) if octet in _PLAIN else f"%{octet:02X}" for octet in octets)


def _contexts() -> list[tuple[str, str]]:
    known = _known_contexts()
    here = [("local", "the gateway of this machine")]
    return [*here, *((name, str(each["url"])) for name, each in sorted(known.get("contexts", {}).items()))]


def _known_contexts() -> dict[str, Any]:
    """The file that `contexts` writes; nothing where there is none."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 (a str is all)
    try:
        with open(f"{home}/gatectl/contexts.json", "rb") as file:  # noqa: PTH123 (a str is all)
            known: dict[str, Any] = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return known
