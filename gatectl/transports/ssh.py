"""A gateway's admin socket through ssh: `gatectl relay` on the far side, its input and output are the connection.

Who may log in there is sshd's to say, and what they may do the socket's, so there is no token. ssh asks for a password
itself, at the terminal.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from time import monotonic

from gatectl.errors import EXIT_CODES, GatectlError, MisuseError, UnreachableError
from gatectl.relay import GREETING

# For who types a password and looks for a second factor.
_LOGIN_TIMEOUT_S = 120.0
_CONNECT_TIMEOUT_S = 15  # ssh waits two minutes for a machine that is off; what GATECTL_SSH says comes first and wins
_NOISE_LIMIT_BYTES = 65536  # of what a far shell says before the relay does
# With - before it, it would be an option of ssh, and those run programs; the others mean something to the shell that
# runs a ProxyCommand with the name in it.
_NAME = re.compile(r"(?!-)[^\s\x00-\x20\x7f'\"`$;&<>|(){}*?!,]+")
_BY_CODE = {code: kind for kind, code in EXIT_CODES.items()}


class Ssh:
    """A machine that one can log in to. `socket_path`: of its admin socket; "" leaves it to its gatectl."""

    host = "gatewayd"
    base = ""
    kept = True  # each costs a login
    mend = "is the gatectl there the same version?"

    def __init__(self, user: str, host: str, port: int | None, socket_path: str) -> None:
        for part in (user, host):
            if part and not _NAME.fullmatch(part):
                raise MisuseError(f"{part!r} cannot be a name of ssh", "see 'gatectl context --help'")
        if not socket_path.isprintable():
            raise MisuseError(f"{socket_path!r} cannot be the path of a socket")
        self._login = f"{user}@{host}" if user else host
        self._port = port
        self._socket_path = socket_path
        shown = f"[{host}]" if ":" in host else host
        self.place = f"ssh://{user + '@' if user else ''}{shown}{f':{port}' if port else ''}{socket_path}"
        self.refused: Mapping[str, str] = {
            "not_permitted": f"log in as another user, or let {self._login} into the group of the socket there"
        }

    def __repr__(self) -> str:
        return f"<Ssh {self.place}>"

    def argv(self) -> list[str]:
        """What is run here; its last word is a line for the far shell."""
        try:
            program = shlex.split(os.environ.get("GATECTL_SSH", "")) or ["ssh"]
        except ValueError as error:
            raise MisuseError(f"GATECTL_SSH is no command line: {error}") from None
        port = ["-p", str(self._port)] if self._port else []
        far = "gatectl relay" + (f" {shlex.quote(self._socket_path)}" if self._socket_path else "")
        return [*program, "-T", "-o", f"ConnectTimeout={_CONNECT_TIMEOUT_S}", *port, self._login, far]

    def connect(self, timeout_s: float) -> Login:
        """Raises what the far side says, or where to look: ssh's own words go to stderr as they are."""
        argv = self.argv()
        ours, its = socket.socketpair()
        try:
            login = _begun(argv, ours, its)
        except OSError as error:
            ours.close()
            hint = "install the client of OpenSSH, or name another program with GATECTL_SSH"
            raise UnreachableError(f"cannot run {argv[0]}: {error.strerror}", hint) from None
        finally:
            its.close()
        try:
            self._await_relay(login)
        except BaseException:
            login.close()
            raise
        login.settimeout(timeout_s)
        return login

    def _await_relay(self, login: Login) -> None:
        """Read up to the relay's first line. A far shell may have said something before."""
        deadline, heard = monotonic() + _LOGIN_TIMEOUT_S, b""
        while True:
            start = heard.find(GREETING)
            if start >= 0 and (end := heard.find(b"\n", start)) >= 0:
                return self._greeted(heard[start + len(GREETING) : end].decode("utf-8", "replace"))
            login.settimeout(max(deadline - monotonic(), 0.001))
            try:
                received = login.recv(4096)
            except TimeoutError:
                raise UnreachableError(f"{self._login} did not answer within {_LOGIN_TIMEOUT_S:g} s") from None
            except OSError:
                received = b""
            if not received:
                raise self._ended(login.ended())
            heard += received
            if len(heard) > _NOISE_LIMIT_BYTES:
                raise UnreachableError(f"what answers at {self.place} is no gatectl", self.mend)

    def _greeted(self, told: str) -> None:
        code, _, what = told.partition(" ")
        if code != "0":
            kind = _BY_CODE.get(int(code) if code.isdecimal() else 1, GatectlError)
            what, _, hint = what.partition("; ")
            if kind is UnreachableError:
                hint = f"start gatewayd there, or name its socket: ssh://{self._login}/run/gatewayd/admin.sock"
            raise kind(f"on {self._login}: {what}", hint)

    def _ended(self, code: int) -> GatectlError:
        if code == 127:
            hint = "link it there to a folder that a command by ssh finds, such as /usr/local/bin"
            return UnreachableError(f"{self._login} has no gatectl on its PATH", hint)
        if code == 255:
            hint = f"what ssh said is above; '{shlex.join(['ssh', self._login, 'true'])}' has to work first"
            return UnreachableError(f"no ssh connection to {self._login}", hint)
        return UnreachableError(f"gatectl on {self._login} ended with {code} before it began", self.mend)


def _begun(argv: list[str], ours: socket.socket, its: socket.socket) -> Login:
    """A Ctrl-C waits until it is: within Popen it would leave an ssh behind that nobody knows of, at the terminal."""
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and callable(signal.getsignal(signal.SIGINT))):  # nothing here is interrupted
        return Login(ours, subprocess.Popen(argv, stdin=its.fileno(), stdout=its.fileno()))
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))  # ssh begins with the default
    login = None
    try:
        login = Login(ours, subprocess.Popen(argv, stdin=its.fileno(), stdout=its.fileno()))
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            if login is not None:
                login.close()
            raise KeyboardInterrupt
    return login


class Login:
    """A running ssh and our end of its input and output."""

    def __init__(self, ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._socket = ours
        self._process = process
        self.sendall, self.recv = ours.sendall, ours.recv
        self.settimeout, self.fileno = ours.settimeout, ours.fileno

    def ended(self) -> int:
        """Wait for ssh, whose output has ended, and say how it did."""
        try:
            return self._process.wait(5)
        except subprocess.TimeoutExpired:
            return -1

    def close(self) -> None:
        """End ssh, and with it the relay. The end of its input would do too, but two round trips later."""
        if self._process.poll() is None:
            self._process.terminate()
            self.ended()
        self._socket.close()
