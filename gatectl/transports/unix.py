"""The admin socket of this machine."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from gatectl.errors import GatectlError, MisuseError, NotPermittedError, UnreachableError

_NAME_SOCKET = "name its socket with --socket or GATECTL_SOCKET"


class UnixSocket:
    """A path at which gatewayd listens, and looks who connects."""

    host = "gatewayd"
    base = ""
    # A connect takes 50 us, and one kept while a person thinks about a confirmation would be closed by the other side.
    kept = False
    mend = _NAME_SOCKET
    refused: Mapping[str, str] = {}

    def __init__(self, path: str) -> None:
        self.place = path

    def __repr__(self) -> str:
        return f"<UnixSocket {self.place}>"

    def connect(self, timeout_s: float) -> socket.socket:
        """Raises what says how to be admitted, or where to look."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(self.place)
        except (OSError, ValueError) as error:
            connection.close()
            raise self._unconnected(error) from None
        return connection

    def _unconnected(self, error: OSError | ValueError) -> GatectlError:
        path = self.place
        match error:
            case FileNotFoundError() | NotADirectoryError():
                return UnreachableError(f"no gateway at {path}", f"start gatewayd or {_NAME_SOCKET}")
            case ConnectionRefusedError():
                return UnreachableError(f"nothing listens at {path}", f"start gatewayd or {_NAME_SOCKET}")
            case PermissionError():
                hint = "run it as root, as the user of gatewayd, or as a member of the socket's group"
                return NotPermittedError(f"no permission to use {path}", hint)
            case TimeoutError() | BlockingIOError():
                return UnreachableError(f"the gateway at {path} takes no connections", "try again in a moment")
            case OSError(strerror=str(reason)):
                return UnreachableError(f"cannot connect to {path}: {reason}", _NAME_SOCKET)
        # Too long, or with a NUL: the interpreter refuses before the system is asked.
        return MisuseError(f"{path!r} cannot be the path of a socket: {error}", _NAME_SOCKET)
