"""Large bodies, sent and taken by threads over blocking sockets: as fast as it goes, or pausing regularly.

A body is PIECE again and again, as many bytes as it is to have, with a length or in chunks; who takes it checks each
byte. An upstream that is asked for `/down/BYTES/FRAMING` sends such a body, at `/up/BYTES/FRAMING` it takes one.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

PIECE = random.Random(7).randbytes(256 << 10)
PAUSE_EVERY_BYTES = 8 << 20
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Pace:
    """How one side handles a body: it stops for `pause_s` after every PAUSE_EVERY_BYTES."""

    pause_s: float = 0.0

    def keep(self, before: int, after: int) -> None:
        if self.pause_s and before // PAUSE_EVERY_BYTES != after // PAUSE_EVERY_BYTES:
            time.sleep(self.pause_s)


class Reader:
    """Reads messages from a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()

    def head(self) -> bytes:
        """A message's head; empty at the end of the connection."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not self._fill():
                return b""
        head = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        return head

    def body(self, head: bytes, pace: Pace) -> int:
        """Take a whole body and check it. Returns its length."""
        if b"transfer-encoding: chunked" not in head.lower():
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            return self._pieces(0, length, pace)
        taken = 0
        while size := int(self._line(), 16):
            taken = self._pieces(taken, size, pace)
            assert self._line() == b""
        assert self._line() == b""
        return taken

    def _pieces(self, start: int, length: int, pace: Pace) -> int:
        position, end = start, start + length
        while position < end:
            if not self._buffer:
                assert self._fill(), f"the connection ended {end - position} bytes early"
            at = position % len(PIECE)
            count = min(len(self._buffer), end - position, len(PIECE) - at)
            assert self._buffer[:count] == PIECE[at : at + count], f"other bytes at {position}"
            del self._buffer[:count]
            pace.keep(position, position + count)
            position += count
        return end

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            assert self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _fill(self) -> bool:
        data = self._sock.recv(1 << 18)
        self._buffer += data
        return bool(data)


def framing(length: int, chunked: bool) -> bytes:
    return b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % length


def send_body(sock: socket.socket, length: int, chunked: bool, pace: Pace) -> None:
    """PIECE by PIECE."""
    sent = 0
    while sent < length:
        piece = PIECE[: length - sent]
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        pace.keep(sent, sent + len(piece))
        sent += len(piece)
    if chunked:
        sock.sendall(b"0\r\n\r\n")


class BodyServer:
    """The upstream. `pace` is how it handles the next bodies; `taken` are the lengths of those that it was sent."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.pace = Pace()
        self.taken: list[int] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        reader = Reader(sock)
        with sock, contextlib.suppress(OSError):
            while head := reader.head():
                _, way, length, how = head.split(b" ")[1].split(b"/")[-4:]
                if way == b"up":
                    self.taken.append(reader.body(head, self.pace))
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                else:
                    chunked = how == b"chunked"
                    sock.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing(int(length), chunked))
                    send_body(sock, int(length), chunked, self.pace)


@contextlib.contextmanager
def body_server() -> Iterator[BodyServer]:
    server = BodyServer()
    try:
        yield server
    finally:
        server.close()


def download(address: tuple[str, int], path: str, length: int, chunked: bool, pace: Pace) -> int:
    """Ask for a body through the gateway; returns how many bytes of it came."""
    with socket.create_connection(address, timeout=PATIENCE_S) as sock:
        target = f"{path}/down/{length}/{'chunked' if chunked else 'length'}"
        sock.sendall(b"GET %b HTTP/1.1\r\nHost: gateway\r\n\r\n" % target.encode())
        reader = Reader(sock)
        head = reader.head()
        assert head.startswith(b"HTTP/1.1 200"), head
        return reader.body(head, pace)


def upload(address: tuple[str, int], path: str, length: int, chunked: bool, pace: Pace) -> None:
    """Send a body through the gateway, and wait for the answer."""
    with socket.create_connection(address, timeout=PATIENCE_S) as sock:
        how = "chunked" if chunked else "length"
        head = b"POST %b HTTP/1.1\r\nHost: gateway\r\n%b\r\n\r\n"
        sock.sendall(head % (f"{path}/up/{length}/{how}".encode(), framing(length, chunked)))
        send_body(sock, length, chunked, pace)
        answer = Reader(sock).head()
        assert answer.startswith(b"HTTP/1.1 200"), answer
