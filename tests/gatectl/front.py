"""What stands before a fake daemon for those who come from elsewhere: TCP on loopback, with TLS if wanted."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from pathlib import Path
from select import select


class Front:
    """Passes connections on to a socket's path, and remembers how many there were and what they showed.

    With `ends_after` it closes a connection once so many answers have passed, as a server does with those at rest.
    """

    def __init__(self, behind: Path, tls: ssl.SSLContext | None = None, ends_after: int | None = None) -> None:
        self.connections = 0
        self.tokens: list[str] = []
        self._behind, self._tls, self._ends_after = behind, tls, ends_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http{'s' * (self._tls is not None)}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """In one thread: OpenSSL does not let two read and write one connection."""
        inner = socket.socket(socket.AF_UNIX)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self.connections += 1
            inner.connect(str(self._behind))
            self._pass_on(connection, inner)
        except OSError:
            pass
        finally:
            _hang_up(inner, connection)

    def _pass_on(self, connection: socket.socket, inner: socket.socket) -> None:
        answers = 0
        while True:
            pending = isinstance(connection, ssl.SSLSocket) and connection.pending()
            ready = [connection] if pending else select([connection, inner], [], [])[0]
            if connection in ready:
                given = connection.recv(65536)
                if not given:
                    return
                self.tokens += re.findall(r"Authorization: Bearer (.*)\r", given.decode("latin-1"))
                inner.sendall(given)
            elif received := inner.recv(1 << 20):
                connection.sendall(received)
                answers += received.count(b"HTTP/1.1 ")
                if answers == self._ends_after and received.endswith(b"}"):
                    return
            else:
                return


def _hang_up(*connections: socket.socket) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
