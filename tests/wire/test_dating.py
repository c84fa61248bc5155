"""The Date of answers: nobody's is touched, and none is without (RFC 9110 section 6.6.1)."""

from __future__ import annotations

import asyncio
import re
import time
from email.utils import parsedate_to_datetime

import pytest

from gatewayd.conf import HeaderRuleConf
from tests.wire.harness import GET, OK, Wire, service
from tests.wire.peer import Message

pytestmark = pytest.mark.anyio

THEIRS = b"Sun, 06 Nov 1994 08:49:37 GMT"
_IMF_FIXDATE = re.compile(rb"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")


def answer(*fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"Content-Length: 2", b"", b"ok"])


def now_s() -> int:
    return time.time_ns() // 1_000_000_000


def seconds(message: Message) -> float:
    date = message.one(b"Date")
    assert _IMF_FIXDATE.fullmatch(date), date
    return parsedate_to_datetime(date.decode()).timestamp()


@pytest.mark.parametrize(
    "sent",
    [OK, b"HTTP/1.1 304 Not Modified\r\n\r\n", answer(b"X-Date: a", b"A: Date: b"),
     answer(b"Connection: date", b"Date: " + THEIRS)],
    ids=["without", "304", "in others", "named by Connection"],
)  # fmt: skip
async def test_an_answer_without_one_is_dated_when_it_comes(wire: Wire, sent: bytes) -> None:
    wire.upstream.answer = sent
    before = now_s()
    assert before <= seconds(await wire.ask(GET)) <= now_s()


@pytest.mark.parametrize("name", [b"Date", b"date", b"DATE"])
async def test_an_upstreams_own_stays_as_it_is(wire: Wire, name: bytes) -> None:
    wire.upstream.answer = answer(b"A: 1", b"%b:  %b" % (name, THEIRS))
    got = await wire.ask(GET)
    assert [field for field in got.fields if field[0].lower() == b"date"] == [(name, THEIRS)]


async def test_a_head_that_repeats_is_dated_anew(wire: Wire) -> None:
    """It is read once, and what it says of time would stand still."""
    client = await wire.client()
    dates = []
    for wait_s in (0.0, 1.1):
        await asyncio.sleep(wait_s)
        await client.send(GET)
        dates.append(seconds(await client.message()))
    assert dates[1] >= dates[0] + 1
    assert len(wire.upstream.peers) == 1


async def test_interim_answers_have_none(wire: Wire) -> None:
    wire.upstream.answer = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK
    client = await wire.client()
    await client.send(GET)
    assert not (await client.message(interim=True)).all(b"Date")
    assert seconds(await client.message())


@pytest.mark.parametrize(
    "request_",
    [b"GET /keyed/ HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n", b"nothing\r\n\r\n"],
    ids=["401", "404", "400"],
)  # fmt: skip
async def test_refusals_are_dated(wire: Wire, request_: bytes) -> None:
    before = now_s()
    assert before <= seconds(await wire.ask(request_)) <= now_s()


@pytest.mark.parametrize(
    ("action", "value", "dates"),
    [("remove", "", []), ("set", THEIRS.decode(), [THEIRS]), ("add", THEIRS.decode(), [THEIRS])],
)
async def test_what_a_rule_says_of_it_holds(wire: Wire, action: str, value: str, dates: list[bytes]) -> None:
    url = f"http://127.0.0.1:{wire.upstream.port}"
    rule = HeaderRuleConf("response", action, "Date", value)  # type: ignore[arg-type]
    wire.serve(service(1, "open", url, header_rules=(rule,)))
    client = await wire.client()
    for _ in range(2):
        await client.send(GET)
        assert (await client.message()).all(b"Date") == dates
