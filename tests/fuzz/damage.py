"""Well-formed messages, and what is put into them, cut out of them and repeated."""

from __future__ import annotations

import random
import re

REQUESTS = (
    b"GET /open/a HTTP/1.1\r\nHost: api\r\nX-User-Id: 1\r\n\r\n",
    b"HEAD /open/b HTTP/1.1\r\nHost: api\r\nAccept: */*\r\n\r\n",
    b"POST /open/c HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=y\r\n01234\r\n0\r\n\r\n",
    b"PUT /open/d HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nGET /",
    b"DELETE /open/e?x=1 HTTP/1.1\r\nHost: api\r\nConnection: x-a\r\nX-A: 1\r\n\r\n",
    b"GET http://api/open/f HTTP/1.1\r\nHost: api\r\n\r\n",
    b"GET /nobody/g HTTP/1.1\r\nHost: api\r\n\r\n",
    b"POST /open/h HTTP/1.1\r\nHost: api\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    b"GET /open/i HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /small/j HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nX: y\r\n\r\n",
)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=y\r\n01234\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nRateLimit: a\r\n\r\nuntil the end",
    b"HTTP/1.1 404 Not Found\r\nConnection: x-a\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
)
SPLICES = (
    b"", b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b"\t", b"\x0b", b"\x7f", b"\xff", b"0", b"5", b";", b",", b"#", b"_",
    b"+", b"-", b"0x", b"\r\n ", b"\r\n\r\n", b"\n\n", b"\r\r\n", b"0\r\n\r\n", b"1\r\nx\r\n", b"\r\nContent-Length: 3",
    b"\r\nContent-Length: 0", b"\r\nTransfer-Encoding: chunked", b"\r\nTransfer-Encoding: identity",
    b"\r\nTransfer_Encoding: chunked", b"\r\nHost: b", b"\r\nConnection: close", b"\r\nConnection: content-length",
    b"\r\nExpect: 100-continue", b"\r\nUpgrade: h2c\r\nConnection: upgrade", b"\r\nX-A: 1", b"HTTP/1.0", b"HTTP/1.1",
    b"HTTP/2.0", b"HEAD ", b"CONNECT ", b"GET /open/z HTTP/1.1\r\nHost: api\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", b"HTTP/1.1 304 Not Modified\r\n\r\n",
)  # fmt: skip


_SEAM = re.compile(rb"(?=\r\n)|(?<=\r\n)|(?=[: ;])|(?<=[: ;])|^|$")


def place(data: bytes, dice: random.Random) -> int:
    """Where to strike: mostly at a seam, where parsers differ."""
    if dice.randrange(4):
        return dice.choice([seam.start() for seam in _SEAM.finditer(data)])
    return dice.randrange(len(data) + 1)


def damaged(data: bytes, dice: random.Random) -> bytes:
    """One to four times: put a splice in, in place of a few bytes; or change, drop or double a part."""
    for _ in range(dice.choice((0, 1, 1, 1, 2, 2, 3, 4))):
        at = place(data, dice)
        count = dice.choice((0, 0, 1, 1, 2, 4, 16))
        match dice.randrange(6):
            case 0 | 1 | 2:
                data = data[:at] + dice.choice(SPLICES) + data[at + count :]
            case 3:
                data = data[:at] + bytes((dice.randrange(256),)) + data[at + 1 :]
            case 4:
                data = data[:at] + data[at : at + count] * 2 + data[at + count :]
            case 5:
                data = data[:at] + data[at + count :]
    return data


def pieces(data: bytes, dice: random.Random) -> list[bytes]:
    """Whole, byte by byte, or cut at a few places."""
    match dice.randrange(8):
        case 0:
            return [data[at : at + 1] for at in range(len(data))]
        case 1 | 2:
            return [data]
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randrange(1, 5)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def requests(dice: random.Random) -> list[bytes]:
    """Some in a row; now and then with something between them, where one ends and the next begins."""
    between = dice.choice(SPLICES) if dice.randrange(4) == 0 else b""
    row = b"".join(between + request for request in dice.choices(REQUESTS, k=dice.randrange(1, 4)))
    return pieces(damaged(row, dice), dice)


def answer(dice: random.Random) -> list[bytes]:
    return pieces(damaged(dice.choice(ANSWERS), dice), dice)
