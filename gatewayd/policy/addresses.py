"""What may be an address: slugs, paths, hosts, target URLs, and when two services claim the same address.

Each check raises ValueError with a sentence. A service claims its built-in addresses, `/{tenant}/{slug}` and for the
default tenant also `/{slug}`, and every path it was given. No two services may claim the same; a longer claim inside a
shorter one is fine, since the most specific wins. The one overlap that specificity cannot settle is a tenant and a
service of the default tenant of one name: `/acme/orders` would be either's. So such a pair is refused.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

DEFAULT_TENANT = "default"
DEFAULT_PORTS = {"http": 80, "https": 443}  # the schemes of targets
MOST_NAMES = 8  # of one path, each of which doubles the ways in which a request may go (see `routing`)
RESERVED_SLUGS = frozenset({"proxy"})  # /proxy/{service_id}

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
# A dot segment in every spelling that some server resolves: dots encoded (RFC 3986 section 6.2.2), slashes encoded or
# turned round, a parameter behind the dots (`/..;/` is `/../` to Tomcat).
DOT_SEGMENT = re.compile(rb"(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\;]|%2f|%5c|%3b|\Z)", re.IGNORECASE)
_SEGMENT_CHARACTERS = re.compile(r"[A-Za-z0-9/._~!$&'()*+,;=:@-]*", re.ASCII)  # RFC 3986 pchar but for %
_LONGEST_PATH = 1024
_LONGEST_URL = 2048
_LONGEST_SOCKET_PATH = 107  # sockaddr_un.sun_path with its closing NUL (unix(7))
_TARGET = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>\[[^\]/]*\]|[^\[\]/:@]*)(?::(?P<port>[^/]*))?(?P<base>/.*)?",
    re.ASCII,
)
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.ASCII)
_NAME = re.compile(r"(?<=/)\{[A-Za-z_][A-Za-z0-9_]{0,62}\}(?=/|$)", re.ASCII)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
# Read by the wire before anyone looks for a key, or stripped from what a client sends.
_HEADERS_NOT_FOR_KEYS = frozenset({
    "client-cert", "client-cert-chain", "connection", "content-length", "content-type", "expect", "forwarded", "host",
    "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "x-client-id", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id",
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


def check_slug(slug: str) -> str:
    """A name that can stand in a URL."""
    if _SLUG.fullmatch(slug) is None:
        raise ValueError(f"{short(slug)} is not a slug: 1 to 63 of a-z, 0-9 and -, not beginning with -")
    if slug in RESERVED_SLUGS:
        raise ValueError(f"{slug!r} is reserved: /{slug}/ is an address of gatewayd itself")
    return slug


def check_path(path: str) -> str:
    """A path prefix, without a trailing slash; `/` for a whole host."""
    check_characters(path)
    first = path.split("/", 2)[1]
    if first in RESERVED_SLUGS:
        raise ValueError(f"path {short(path)} is reserved: /{first}/ is an address of gatewayd itself")
    return path.rstrip("/") or "/"


def check_pattern(path: str) -> str:
    """The path of a route: as `check_path`, and a segment may be `{name}`, which stands for any one."""
    check_path(without_names(path))
    if path.count("{") > MOST_NAMES:
        raise ValueError(f"path {short(path)} has more than {MOST_NAMES} names")
    return path.rstrip("/") or "/"


def without_names(path: str) -> str:
    """The path with a letter for each `{name}`, as far as characters go."""
    plain = _NAME.sub("x", path)
    if "{" in plain or "}" in plain:
        raise ValueError(f"path {short(path)} has a brace that is no {{name}} in the place of a whole segment")
    return plain


def check_characters(path: str) -> None:
    """What may stand in a path that is compared byte by byte, before anyone decodes it."""
    if not path.startswith("/"):
        raise ValueError(f"path {short(path)} does not begin with /")
    if len(path) > _LONGEST_PATH:
        raise ValueError(f"path {short(path)} is longer than {_LONGEST_PATH} characters")
    if _SEGMENT_CHARACTERS.fullmatch(path) is None:
        raise ValueError(f"path {short(path)} holds a character that a prefix may not (space, ?, #, %, or non-ASCII)")
    if "//" in path:
        raise ValueError(f"path {short(path)} has an empty segment (//)")
    segments = path.split("/")
    if "." in segments or ".." in segments:
        raise ValueError(f"path {short(path)} has a dot segment, which clients resolve before they send it")


def check_match_host(host: str) -> str:
    """The host of a route: a name, `*.` and a name for all that end in it, or an address. In lower case, no port."""
    lower = host.lower().rstrip(".")
    name = lower.removeprefix("*.")
    if ":" in name and not name.startswith("["):
        raise ValueError(f"{short(host)} has a port, which is not compared; leave it out (IPv6 stands in brackets)")
    if name.startswith("["):
        try:
            return f"[{IPv6Address(lower.removeprefix('[').removesuffix(']'))}]"
        except ValueError:
            raise ValueError(f"{short(host)} is no IPv6 address in brackets") from None
    if _HOST_NAME.fullmatch(name) is None:
        raise ValueError(f"{short(host)} is neither a host such as api.example.com nor one such as *.example.com")
    return lower


def check_target(url: str) -> str:
    """An upstream base URL, scheme and host in lower case, without a trailing slash.

    `http://`, `https://`, or a Unix socket in nginx's spelling: `unix:/run/app.sock` or `unix:/run/app.sock:/base`.
    """
    if "@" in re.split(r"[/?#]", url.partition("://")[2] or url, maxsplit=1)[0]:
        # First, and without quoting the URL: what stands before @ may be a password.
        raise ValueError("a target cannot carry a user or a password")
    if len(url) > _LONGEST_URL:
        raise ValueError(f"target {short(url)} is longer than {_LONGEST_URL} characters")
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"target {short(url)} holds a space, a control or a non-ASCII character")
    if url[:5].lower() == "unix:":
        return _check_socket(url)
    match = _TARGET.fullmatch(url)
    scheme = "" if match is None else match["scheme"].lower()
    if match is None or scheme not in DEFAULT_PORTS:
        what = "has no scheme; write it as" if "://" not in url else "is not a URL such as"
        raise ValueError(f"target {short(url)} {what} http://HOST:PORT, https://HOST:PORT or unix:/PATH")
    if "?" in url or "#" in url:
        raise ValueError(f"target {short(url)} has a query or a fragment, which a base URL cannot have")
    host = _check_host(match["host"].lower(), url)
    port = _check_port(match["port"], url)
    return f"{scheme}://{host}{port}{(match['base'] or '').rstrip('/')}"


def split_socket(target: str) -> tuple[str, str]:
    """Path of the socket and base of a checked `unix:` target. The colon parts them, so a path cannot hold one."""
    path, _, base = target.removeprefix("unix:").partition(":")
    return path, base


def check_server_name(name: str) -> str:
    """The name or address that a certificate must be for."""
    lower = name.lower()
    try:
        return str(ip_address(lower))
    except ValueError:
        if _HOST_NAME.fullmatch(lower) is None:
            raise ValueError(f"{short(name)} is neither the name of a host nor an address") from None
    return lower


def check_key_header(name: str) -> str:
    """The header that carries a service's keys."""
    if _HEADER_NAME.fullmatch(name) is None:
        raise ValueError(f"{short(name)} is not the name of a header")
    if name.lower() in _HEADERS_NOT_FOR_KEYS:
        raise ValueError(f"{name!r} has a meaning of its own and cannot carry a key")
    return name


def _check_host(host: str, url: str) -> str:
    if not host:
        raise ValueError(f"target {short(url)} has no host (an IPv6 address stands in brackets)")
    if host.startswith("["):
        try:
            return f"[{IPv6Address(host[1:-1])}]"
        except ValueError:
            raise ValueError(f"target {short(url)} has a host in [] that is no IPv6 address") from None
    if _HOST_NAME.fullmatch(host) is None:
        raise ValueError(f"target {short(url)} has a host that is neither a name nor an address")
    return host


def _check_socket(url: str) -> str:
    path, base = split_socket("unix:" + url[5:])
    if "?" in url or "#" in url:
        raise ValueError(f"target {short(url)} has a query or a fragment, which a base URL cannot have")
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError(f"target {short(url)} does not name a socket by its whole path, such as unix:/run/app.sock")
    if len(path) > _LONGEST_SOCKET_PATH:
        raise ValueError(
            f"target {short(url)} has a path longer than the {_LONGEST_SOCKET_PATH} that a socket's may be"
        )
    if base and not base.startswith("/"):
        raise ValueError(
            f"target {short(url)} has a base path that does not begin with /, as in unix:/run/app.sock:/v1"
        )
    base = base.rstrip("/")
    return f"unix:{path}:{base}" if base else f"unix:{path}"


def _check_port(port: str | None, url: str) -> str:
    if port is None:
        return ""
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"target {short(url)} has a port that is not between 1 and 65535")
    return f":{int(port)}"


def short(text: str) -> str:
    """Quoted for an error; cut after that, since one character may be quoted as ten."""
    quoted = repr(text[:81])
    return quoted if len(text) <= 80 and len(quoted) <= 82 else f"{quoted[:78]}...{quoted[0]}"
