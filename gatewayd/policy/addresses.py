"""What may be an address: slugs, path prefixes, target URLs, and when two services claim the same address.

Each check raises ValueError with a sentence. A service claims its built-in addresses, `/{tenant}/{slug}` and for the
default tenant also `/{slug}`, and every path it was given. No two services may claim the same; a longer claim inside a
shorter one is fine, since the most specific wins. The one overlap that specificity cannot settle is a tenant and a
service of the default tenant of one name: `/acme/orders` would be either's. So such a pair is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import NamedTuple

DEFAULT_TENANT = "default"
RESERVED_SLUGS = frozenset({"proxy"})  # /proxy/{service_id}

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_SEGMENT_CHARACTERS = re.compile(r"[A-Za-z0-9/._~!$&'()*+,;=:@-]*", re.ASCII)  # RFC 3986 pchar but for %
_LONGEST_PATH = 1024
_LONGEST_URL = 2048
_TARGET = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>\[[^\]/]*\]|[^\[\]/:@]*)(?::(?P<port>[^/]*))?(?P<base>/.*)?",
    re.ASCII,
)
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.ASCII)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
# Read by the wire before anyone looks for a key, or stripped from what a client sends.
_HEADERS_NOT_FOR_KEYS = frozenset({
    "connection", "content-length", "content-type", "expect", "host", "keep-alive", "proxy-authorization",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "x-client-id", "x-request-id",
})  # fmt: skip


class Claim(NamedTuple):
    """A service and its paths, as far as addresses go."""

    tenant: str
    slug: str
    paths: tuple[str, ...]

    def addresses(self) -> tuple[str, ...]:
        return (*built_in_addresses(self.tenant, self.slug), *self.paths)

    def __str__(self) -> str:
        return self.slug if self.tenant == DEFAULT_TENANT else f"{self.slug} of tenant {self.tenant}"


def built_in_addresses(tenant: str, slug: str) -> tuple[str, ...]:
    """Where a service answers without being told to."""
    own = f"/{tenant}/{slug}"
    return (own, f"/{slug}") if tenant == DEFAULT_TENANT else (own,)


def claimed_already(new: Claim, others: Iterable[Claim]) -> str | None:
    """Why `new` cannot be, in a sentence; None when it can. `others`: live services of all tenants but this one."""
    mine = set(new.addresses())
    for other in others:
        for address in other.addresses():
            if address in mine:
                return f"the address {address} is already that of service {other}"
    return None


def check_slug(slug: str) -> str:
    """A name that can stand in a URL."""
    if _SLUG.fullmatch(slug) is None:
        raise ValueError(f"{_short(slug)} is not a slug: 1 to 63 of a-z, 0-9 and -, not beginning with -")
    if slug in RESERVED_SLUGS:
        raise ValueError(f"{slug!r} is reserved: /{slug}/ is an address of gatewayd itself")
    return slug


def check_path(path: str) -> str:
    """A path prefix, without a trailing slash; `/` for a whole host."""
    if not path.startswith("/"):
        raise ValueError(f"path {_short(path)} does not begin with /")
    if len(path) > _LONGEST_PATH:
        raise ValueError(f"path {_short(path)} is longer than {_LONGEST_PATH} characters")
    if _SEGMENT_CHARACTERS.fullmatch(path) is None:
        raise ValueError(f"path {_short(path)} holds a character that a prefix may not (space, ?, #, %, or non-ASCII)")
    if "//" in path:
        raise ValueError(f"path {_short(path)} has an empty segment (//)")
    segments = path.split("/")
    if "." in segments or ".." in segments:
        raise ValueError(f"path {_short(path)} has a dot segment, which clients resolve before they send it")
    if segments[1] in RESERVED_SLUGS:
        raise ValueError(f"path {_short(path)} is reserved: /{segments[1]}/ is an address of gatewayd itself")
    return path.rstrip("/") or "/"


def check_target(url: str) -> str:
    """An upstream base URL, scheme and host in lower case, without a trailing slash."""
    if "@" in re.split(r"[/?#]", url.partition("://")[2] or url, maxsplit=1)[0]:
        # First, and without quoting the URL: what stands before @ may be a password.
        raise ValueError("a target cannot carry a user or a password")
    if len(url) > _LONGEST_URL:
        raise ValueError(f"target {_short(url)} is longer than {_LONGEST_URL} characters")
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"target {_short(url)} holds a space, a control or a non-ASCII character")
    if url.startswith("unix:"):
        raise ValueError(f"target {_short(url)}: Unix sockets are not served yet, only http://")
    match = _TARGET.fullmatch(url)
    if match is None or match["scheme"].lower() not in ("http", "https"):
        what = "has no scheme; write it as" if "://" not in url else "is not a URL such as"
        raise ValueError(f"target {_short(url)} {what} http://HOST:PORT")
    if match["scheme"].lower() == "https":
        raise ValueError(f"target {_short(url)}: https is not served yet, only http://")
    if "?" in url or "#" in url:
        raise ValueError(f"target {_short(url)} has a query or a fragment, which a base URL cannot have")
    host = _check_host(match["host"].lower(), url)
    port = _check_port(match["port"], url)
    return f"http://{host}{port}{(match['base'] or '').rstrip('/')}"


def check_key_header(name: str) -> str:
    """The header that carries a service's keys."""
    if _HEADER_NAME.fullmatch(name) is None:
        raise ValueError(f"{_short(name)} is not the name of a header")
    if name.lower() in _HEADERS_NOT_FOR_KEYS:
        raise ValueError(f"{name!r} has a meaning of its own and cannot carry a key")
    return name


def _check_host(host: str, url: str) -> str:
    if not host:
        raise ValueError(f"target {_short(url)} has no host")
    if host.startswith("["):
        try:
            return f"[{IPv6Address(host[1:-1])}]"
        except ValueError:
            raise ValueError(f"target {_short(url)} has a host in [] that is no IPv6 address") from None
    if _HOST_NAME.fullmatch(host) is None:
        raise ValueError(f"target {_short(url)} has a host that is neither a name nor an address")
    return host


def _check_port(port: str | None, url: str) -> str:
    if port is None:
        return ""
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"target {_short(url)} has a port that is not between 1 and 65535")
    return f":{int(port)}"


def _short(text: str) -> str:
    """Quoted for an error; cut after that, since one character may be quoted as ten."""
    quoted = repr(text[:81])
    return quoted if len(text) <= 80 and len(quoted) <= 82 else f"{quoted[:78]}...{quoted[0]}"
