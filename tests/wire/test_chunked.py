"""The chunked coding: any body in any chunks, fed in any pieces, comes out as it went in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.proxy.chunked import (
    EXTENSION_LIMIT_BYTES,
    LAST_CHUNK,
    TRAILERS_LIMIT_BYTES,
    ChunkedReader,
    InvalidChunkError,
    encode,
)

BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def pieces_of(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` cut at these places."""
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def read(pieces: Sequence[bytes]) -> tuple[bytes, bytes, bool]:
    """Body, what came after it, and whether it was whole."""
    reader = ChunkedReader()
    body, rest = b"", b""
    for piece in pieces:
        if reader.done:
            rest += piece
        else:
            body += reader.feed(piece)
            rest += reader.rest
    return body, rest, reader.done


@given(BODIES, CUTS, st.binary(max_size=10))
def test_encoded_and_read(chunks: list[bytes], cuts: list[int], after: bytes) -> None:
    data = b"".join(encode(chunk) for chunk in chunks) + LAST_CHUNK + after
    assert read(pieces_of(data, cuts)) == (b"".join(chunks), after, True)


@given(st.text(alphabet="0123abF;x= \r\n\t\0", max_size=30).map(str.encode), CUTS)
def test_any_bytes_cut_anywhere(data: bytes, cuts: list[int]) -> None:
    """Whatever comes: whole, cut and byte by byte are read alike, or refused alike."""
    results = []
    for pieces in ([data], pieces_of(data, cuts), [data[at : at + 1] for at in range(len(data))]):
        try:
            results.append(read(pieces))
        except InvalidChunkError:
            results.append((b"", b"refused", False))
    # A refusal may come earlier where more is seen at once, never a different body.
    whole = [result for result in results if result[2]]
    assert not whole or all(result == whole[0] for result in results)


def test_empty_data_does_not_end_a_body() -> None:
    assert encode(b"") == b""


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_limits(step: int) -> None:
    def fed(data: bytes) -> bool:
        return read([data[at : at + step] for at in range(0, len(data), step)])[2]

    assert fed(b"1" + b";" + b"a" * (EXTENSION_LIMIT_BYTES - 1) + b"\r\nx\r\n0\r\n\r\n")
    with pytest.raises(InvalidChunkError):
        fed(b"1" + b";" + b"a" * EXTENSION_LIMIT_BYTES + b"\r\nx\r\n0\r\n\r\n")
    assert fed(b"0\r\n" + b"A: %b\r\n" % (b"b" * 997) * 8 + b"\r\n")
    with pytest.raises(InvalidChunkError):
        fed(b"0\r\n" + b"A: %b\r\n" % (b"b" * 997) * (TRAILERS_LIMIT_BYTES // 1000 + 2) + b"\r\n")


def test_says_what_it_is() -> None:
    reader = ChunkedReader()
    reader.feed(b"5\r\nab")
    assert repr(reader) == "<ChunkedReader data, 3 bytes left of the chunk>"
