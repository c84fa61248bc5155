"""Sockets that outlive the processes that serve from them: bound once, by the supervisor, each with its own care."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from gatewayd.errors import StartupError
from gatewayd.settings import Settings, split_address

BACKLOG = 4096
REMOTE_BACKLOG = 64  # strangers can fill it, and then only others from afar must wait
SYSTEMD_FIRST_FD = 3  # sd_listen_fds(3)
CHANNEL_NAME = "workers.sock"  # also in proxy.link


def bind_listeners(settings: Settings) -> list[socket.socket]:
    """One listening socket a worker, all at one address; or those that systemd has bound (sd_listen_fds(3))."""
    if inherited := _inherited_listeners():
        return inherited
    host, port = split_address(settings.listen)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise StartupError(f"cannot listen on {settings.listen}: {error.strerror}") from None
    _refuse_used_port(family, address, settings.listen)
    listeners: list[socket.socket] = []
    for _ in range(settings.workers):
        if listeners:  # port 0 was given: the others take the port that the first one got
            address = listeners[0].getsockname()
        listeners.append(_listen(family, address, settings.listen))
    return listeners


def _inherited_listeners() -> list[socket.socket]:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = os.environ.get("LISTEN_FDS", "0")
    if not (count.isascii() and count.isdigit()):
        raise StartupError(f"LISTEN_FDS is {count!r}, where systemd gives the number of sockets; unset it")
    try:
        return [socket.socket(fileno=SYSTEMD_FIRST_FD + index) for index in range(int(count))]
    except (OSError, OverflowError):
        raise StartupError(f"LISTEN_FDS is {count}, but there are not so many sockets; unset it") from None


def _refuse_used_port(family: int, address: object, name: str) -> None:
    """SO_REUSEPORT would let a second gatewayd share the port of the first: bind once without it to find out."""
    with _bindable(family, name) as probe:
        try:
            probe.bind(address)  # type: ignore[arg-type]
        except OSError as error:
            raise _cannot_listen(name, error) from None


def _bindable(family: int, name: str, setting: str = "--listen") -> socket.socket:
    try:
        bindable = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # a kernel without IPv6
        raise _cannot_listen(name, error, setting) from None
    bindable.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:  # [::] is for both families, whatever net.ipv6.bindv6only says
        bindable.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return bindable


def _listen(family: int, address: object, name: str) -> socket.socket:
    listener = _bindable(family, name)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)  # type: ignore[arg-type]
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(name, error) from None
    return listener


def _cannot_listen(name: str, error: OSError, setting: str = "--listen") -> StartupError:
    return StartupError(
        f"cannot listen on {name}: {(error.strerror or str(error)).lower()}; choose another with {setting}"
    )


def bind_channel(state_dir: Path) -> socket.socket:
    """Where workers find control. In the state folder, which is ours alone; bound through /proc so that its path may be
    longer than a socket's (see `proxy.link`)."""
    descriptor = os.open(state_dir, os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = Path(f"/proc/self/fd/{descriptor}/{CHANNEL_NAME}")
        return _bind_unix(path, 0o600, f"{state_dir}/{CHANNEL_NAME}")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def bind_remote(settings: Settings) -> Iterator[socket.socket | None]:
    """Where other machines find the admin API, if that was asked for. Raises StartupError."""
    name = settings.admin_listen
    if name is None:
        yield None
        return
    family, address = admin_address(name, encrypted=settings.admin_tls_cert is not None)
    with _bindable(family, name, "--admin-listen") as bound:
        try:
            bound.bind(address)
            bound.listen(REMOTE_BACKLOG)
        except OSError as error:
            raise _cannot_listen(name, error, "--admin-listen") from None
        yield bound


def admin_address(name: str, *, encrypted: bool) -> tuple[int, tuple[str, int]]:
    """Family and address. Raises StartupError where tokens would pass a network for all to read."""
    host, port = split_address(name)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise StartupError(f"cannot listen on {name}: {error.strerror}; choose another with --admin-listen") from None
    if not encrypted and not ip_address(address[0]).is_loopback:
        raise StartupError(
            f"admin_listen {name} is not of this machine alone, and tokens would pass in the clear;"
            " set admin_tls_cert and admin_tls_key, or listen on 127.0.0.1"
        )
    return family, (str(address[0]), int(address[1]))


def address_of(bound: socket.socket) -> str:
    host, port, *_ = bound.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_admin(path: Path) -> socket.socket:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            pass
        else:
            raise StartupError(f"another gatewayd answers on {path}; stop it, or name another --admin-socket")
    return _bind_unix(path, 0o660, str(path))


def _bind_unix(path: Path, mode: int, name: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o777 & ~mode)  # the socket is born with its mode; a chmod would come too late
    try:
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            raise StartupError(f"cannot make the socket {name}: a file that is no socket is in its place")
        path.unlink(missing_ok=True)
        bound.bind(str(path))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise StartupError(f"cannot make the socket {name}: {(error.strerror or str(error)).lower()}") from None
    finally:
        os.umask(mask)
    return bound
