"""The chunked transfer coding (RFC 9112 section 7.1), read strictly.

A reader is fed bytes as they arrive and answers with the data in them; the coding itself is not passed on, the other
side's message is framed anew by `encode`. Refused: a size of more than 15 hex digits, white space around it, a bare CR
or LF, extensions beyond EXTENSION_LIMIT_BYTES, trailers beyond TRAILERS_LIMIT_BYTES or such as a head's fields must not
be either: no colon, white space before it, a folded line, control bytes. What becomes of trailers says `trailers`.
"""

from __future__ import annotations

import re
from enum import Enum, auto

EXTENSION_LIMIT_BYTES = 256
TRAILERS_LIMIT_BYTES = 8192
_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,15})((?:;[\t\x20-\x7e\x80-\xff]*)?)")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_LONGEST_SIZE_LINE = 15 + EXTENSION_LIMIT_BYTES
LAST_CHUNK = b"0\r\n\r\n"


class InvalidChunkError(ValueError):
    """The bytes are not a chunked body; the message cannot be trusted any further."""


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()  # the CRLF after a chunk's data
    TRAILERS = auto()
    DONE = auto()


class ChunkedReader:
    """Reads one chunked body. `feed` returns its data; `done` turns true at its end, `rest` holds what came after.

    `trailers` are the lines between the last chunk and the end, without their line ends.
    """

    __slots__ = ("_buffer", "_left", "_state", "_trailer_lines", "_trailers_bytes", "rest", "trailers")

    def __init__(self) -> None:
        self._state = _State.SIZE
        self._buffer = b""  # the start of a line whose end has not come
        self._left = 0  # of the current chunk
        self._trailer_lines: list[bytes] = []  # four thousand of the shortest fit: a tuple that grows costs 30 ms
        self._trailers_bytes = 0
        self.rest = b""
        self.trailers: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"<ChunkedReader {self._state.name.lower()}, {self._left} bytes left of the chunk>"

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    def feed(self, data: bytes) -> bytes:
        """The body's data in these bytes. Raises InvalidChunkError."""
        data = self._buffer + data
        self._buffer = b""
        pieces: list[bytes] = []
        position = 0
        while position < len(data):
            if self._state is _State.DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._state = _State.DATA_END
                continue
            if self._state is _State.DONE:
                self.rest = data[position:]
                break
            line_end = data.find(b"\n", position)
            if line_end < 0:
                self._buffer = data[position:]
                self._refuse_long_line(len(self._buffer))
                break
            self._read_line(data[position:line_end])
            position = line_end + 1
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def _refuse_long_line(self, length: int) -> None:
        limit = TRAILERS_LIMIT_BYTES if self._state is _State.TRAILERS else _LONGEST_SIZE_LINE + 1
        if length > limit or (self._state is _State.DATA_END and length > 1):
            raise InvalidChunkError("a line of the chunked coding is too long")

    def _read_line(self, line: bytes) -> None:
        if line[-1:] != b"\r":
            raise InvalidChunkError("a line of the chunked coding ends without CR")
        line = line[:-1]
        if self._state is _State.SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None or len(match[2]) > EXTENSION_LIMIT_BYTES:
                raise InvalidChunkError("a chunk's size is malformed")
            self._left = int(match[1], 16)
            self._state = _State.DATA if self._left else _State.TRAILERS
        elif self._state is _State.DATA_END:
            if line:
                raise InvalidChunkError("a chunk is longer than its size")
            self._state = _State.SIZE
        elif line:
            self._trailers_bytes += len(line)
            if self._trailers_bytes > TRAILERS_LIMIT_BYTES or _TRAILER_LINE.fullmatch(line) is None:
                raise InvalidChunkError("the trailers are too long or malformed")
            self._trailer_lines.append(line)
        else:
            self.trailers = tuple(self._trailer_lines)
            self._state = _State.DONE


def encode(data: bytes) -> bytes:
    """One chunk. Empty data would end the body, so it encodes to nothing."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def encode_last(trailers: bytes) -> bytes:
    """The last chunk, with trailer fields that each end in CRLF."""
    return b"0\r\n%b\r\n" % trailers
