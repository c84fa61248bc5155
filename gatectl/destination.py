"""Which gateway a command is for, of all the ways to say so.

What was typed comes before what the environment says, and that before the current context:

    --url, --context, --socket
    GATECTL_URL, GATECTL_CONTEXT, GATECTL_SOCKET, the first of them
    what 'gatectl context use' named
    the local socket

GATECTL_TOKEN goes with what GATECTL_URL or GATECTL_CONTEXT names: what is typed in place of that is not shown it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from gatectl.errors import GatectlError, MisuseError
from gatectl.places import default_socket
from gatectl.transports import Transport
from gatectl.transports.unix import UnixSocket

_LONGEST_TOKEN = 4096  # what is longer is no token, but a file of another kind


class Given(Protocol):
    """What was typed: values of the shared options."""

    url: str | None
    context: str | None
    socket: str | None
    token_file: str | None
    ca: str | None


class Destination(NamedTuple):
    """A gateway, what to show it, and what to call it. `name` is its context's, "" where it has none."""

    transport: Transport
    token: str = ""
    name: str = ""
    local: bool = True  # the machine's own: of that nobody has to be warned

    @property
    def shown(self) -> str:
        """`prod (https://gw.example:8443)`."""
        place = self.transport.place
        return f"{self.name} ({place})" if self.name else place


def choose(given: Given, environ: Mapping[str, str]) -> Destination:
    """Raises what contradicts itself, or is not there."""
    meant_for = environ.get("GATECTL_URL") or environ.get("GATECTL_CONTEXT")
    typed = given.url or given.context
    if not (meant_for and typed and typed != meant_for and environ.get("GATECTL_TOKEN")):
        return _chosen(given, environ)
    destination = _chosen(given, {**environ, "GATECTL_TOKEN": ""})
    name = "GATECTL_URL" if environ.get("GATECTL_URL") else "GATECTL_CONTEXT"
    hint = f"GATECTL_TOKEN goes with {name} alone; give the token of this one with --token-file FILE"
    if not destination.token:
        destination.transport.refused = {**destination.transport.refused, "unauthenticated": hint}
    return destination


def _chosen(given: Given, environ: Mapping[str, str]) -> Destination:
    typed = [f"--{name}" for name in ("url", "context", "socket") if getattr(given, name)]
    if len(typed) > 1:
        raise MisuseError(f"{typed[0]} and {typed[1]} each name a gateway", "give one of them")
    url, context, socket = given.url, given.context, given.socket
    if not typed:
        url = environ.get("GATECTL_URL")
        context = None if url else environ.get("GATECTL_CONTEXT")
        socket = None if url or context else environ.get("GATECTL_SOCKET")
    if url:
        return _at_url(url, given, environ)
    if socket:
        return _at_socket(socket, given)
    return _in_context(context, given, environ)


def read_token(file: str) -> str:
    """The token in a file; `-` is standard input."""
    try:
        if file == "-":
            text = "" if sys.stdin is None else sys.stdin.readline(_LONGEST_TOKEN + 2)
        else:
            with open(file, "rb") as opened:  # noqa: PTH123 (a str is all)
                text = opened.read(_LONGEST_TOKEN + 2).decode("utf-8", "replace")
    except OSError as error:
        raise MisuseError(f"--token-file: cannot read {file}: {error.strerror}") from None
    return checked_token(text.strip(), f"--token-file: {'standard input' if file == '-' else file}")


def checked_token(token: str, where: str) -> str:
    """It goes into a line of a request's head, where neither spaces nor line ends may be."""
    if not token:
        raise MisuseError(f"{where} holds no token")
    if len(token) > _LONGEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise MisuseError(f"{where} holds no token, but something else", "a token is one word such as gwt_...")
    return token


def _at_url(url: str, given: Given, environ: Mapping[str, str]) -> Destination:
    from gatectl.transports.urls import transport_to

    transport = transport_to(url, given.ca or (environ.get("GATECTL_CA", "") if url.startswith("https:") else ""))
    token = environ.get("GATECTL_TOKEN", "")
    return Destination(
        transport, _token_for(url, given, token, "GATECTL_TOKEN"), local=isinstance(transport, UnixSocket)
    )


def _at_socket(path: str, given: Given) -> Destination:
    for name, value in (("--token-file", given.token_file), ("--ca", given.ca)):
        if value:
            raise MisuseError(
                f"{name} is for a gateway at https://", "leave it out, or name one with --url or --context"
            )
    return Destination(UnixSocket(path))


def _in_context(name: str | None, given: Given, environ: Mapping[str, str]) -> Destination:
    from gatectl import contexts  # not for who names a socket

    if name == contexts.LOCAL:
        return _at_socket(environ.get("GATECTL_SOCKET") or default_socket(), given)
    known = contexts.load()
    name = name or known.current
    if name == contexts.LOCAL:
        return _at_socket(default_socket(), given)
    context = known.named(name)
    from gatectl.transports.urls import transport_to

    try:
        transport = transport_to(context.url, given.ca or context.ca)
    except GatectlError as error:
        error.what = f"context {name!r}: {error.what}"
        raise
    token = context.token or environ.get("GATECTL_TOKEN", "")
    token = _token_for(context.url, given, token, f"context {name!r}" if context.token else "GATECTL_TOKEN")
    return Destination(transport, token, name, local=False)


def _token_for(url: str, given: Given, otherwise: str, where: str) -> str:
    """Only TCP takes one: a socket looks who connects."""
    if not url.startswith(("https:", "http:")):
        if given.token_file:
            raise MisuseError(f"--token-file: {url.partition(':')[0]}: takes no token", "leave it out")
        return ""
    if given.token_file:
        return read_token(given.token_file)
    return checked_token(otherwise.strip(), where) if otherwise else ""
