"""A gateway's URL, and the way that it names."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, unquote, urlsplit

from gatectl.errors import MisuseError
from gatectl.transports import Transport

_FORMS = "take https://HOST:PORT, ssh://USER@HOST or unix:/PATH"


def transport_to(url: str, ca_file: str = "") -> Transport:
    """`https://gw.example:8443`, `http://127.0.0.1:9090`, `ssh://ops@gw.example/run/admin.sock`, `unix:/run/a.sock`."""
    if not url.isprintable() or " " in url:
        raise MisuseError(f"{url!r} is no URL of a gateway", _FORMS)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise MisuseError(f"{url!r} is no URL of a gateway: {error}", _FORMS) from None
    if parts.scheme not in ("https", "http", "ssh", "unix") or parts.query or parts.fragment:
        raise MisuseError(f"{url!r} is no URL of a gateway", _FORMS)
    if parts.password is not None or (parts.username and parts.scheme != "ssh"):
        # Not repeated here: it may be a password.
        raise MisuseError("a URL holds no user or password", "a token is given with --token-file FILE or GATECTL_TOKEN")
    if ca_file and parts.scheme != "https":
        raise MisuseError(f"--ca is for https:// and not for {parts.scheme}:", "leave it out")
    if parts.scheme == "unix":
        return _unix(url, parts)
    if not host:
        raise MisuseError(f"{url!r} names no host", _FORMS)
    if parts.scheme == "ssh":
        from gatectl.transports.ssh import Ssh

        return Ssh(unquote(parts.username or ""), host, port, unquote(parts.path if parts.path != "/" else ""))
    return _tcp(parts, host, port, ca_file)


def _unix(url: str, parts: SplitResult) -> Transport:
    from gatectl.transports.unix import UnixSocket

    if parts.netloc or not parts.path.startswith("/"):
        raise MisuseError(f"{url!r} names no socket", "write it as unix:/run/gatewayd/admin.sock")
    return UnixSocket(unquote(parts.path))


def _tcp(parts: SplitResult, host: str, port: int | None, ca_file: str) -> Transport:
    from gatectl.transports.tcp import Tcp

    tls = parts.scheme == "https"
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            raise MisuseError(f"{host!r} cannot be the name of a host", _FORMS) from None
    if not tls and not _is_this_machine(host):
        raise MisuseError(
            f"http:// would show the token to everybody between here and {host}",
            f"take https:// or ssh://{host}; http:// is for this machine alone",
        )
    base = quote(parts.path, safe="/%:@!$&'()*+,;=~")  # what is escaped already stays so
    return Tcp(host, (443 if tls else 80) if port is None else port, base, tls=tls, ca_file=ca_file)


def _is_this_machine(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # where that leads, `tcp` looks when it is there
