"""Look-ups of unknown keys: what control is asked, and what a flood of made-up keys may cost those that are known."""

from __future__ import annotations

import pytest

from gatewayd.channel import FindKey, FromWorker, KeyFound
from gatewayd.conf import KeyConf
from gatewayd.errors import INVALID_KEY, OVERLOADED, Refusal
from gatewayd.keys import digest, new_key
from gatewayd.policy.facts import Facts
from gatewayd.policy.snapshot import compile_snapshot
from gatewayd.proxy import keybook, lookups
from gatewayd.proxy.keybook import KeyBook
from gatewayd.proxy.lookups import ASKED_LIMIT, MISSES_BURST, MISSES_PER_S, UNKNOWN_LIMIT, UNKNOWN_S, WAITING_LIMIT
from tests.wire.harness import GET, Wire, service

CAPACITY = 16


class Book:
    """A worker's memory of keys between requests and a control, both of which are the test."""

    def __init__(self) -> None:
        self.sent: list[FromWorker] = []
        self.woken: list[str] = []
        self.keys = KeyBook(self.sent.append, CAPACITY)

    def wait(self, public_id: str, now: float = 0.0) -> Refusal | None:
        return self.keys.look_ups.wait(public_id, lambda: self.woken.append(public_id), now)

    def miss(self, public_id: str, now: float = 0.0) -> None:
        self.keys.found(KeyFound(public_id, None), now)

    def find(self, public_id: str, number: int, now: float = 0.0) -> None:
        conf = KeyConf(number, public_id, b"", 1, None, False, None, (), None, 1)
        self.keys.found(KeyFound(public_id, conf), now)

    def asked(self) -> list[str]:
        """What control has been asked since this was last called."""
        found = [message.public_id for message in self.sent if isinstance(message, FindKey)]
        self.sent.clear()
        return found


def test_requests_for_one_key_ask_once_and_are_all_woken() -> None:
    book = Book()
    assert [book.wait("a"), book.wait("a")] == [None, None]
    assert book.asked() == ["a"]
    book.find("a", 1)
    assert book.woken == ["a", "a"]


def test_what_is_no_key_is_remembered_for_a_while() -> None:
    book = Book()
    book.wait("a")
    book.miss("a")
    assert book.woken == ["a"]
    refusal = book.wait("a", UNKNOWN_S - 0.1)
    assert refusal is not None and refusal.problem is INVALID_KEY
    assert book.asked() == ["a"]
    assert book.wait("a", UNKNOWN_S) is None  # it may have come to be
    assert book.asked() == ["a"]


@pytest.mark.parametrize("changed", [("a",), None])
def test_news_of_a_key_ends_it(changed: tuple[str, ...] | None) -> None:
    book = Book()
    book.wait("a")
    book.miss("a")
    book.keys.forget(changed)
    assert book.wait("a") is None
    assert book.asked() == ["a", "a"]


def test_made_up_keys_push_no_key_out() -> None:
    book = Book()
    for number in range(CAPACITY):
        book.wait(f"good{number}")
        book.find(f"good{number}", number)
    for number in range(UNKNOWN_LIMIT + 100):
        assert book.wait(f"bad{number}", number / 100) is None
        book.miss(f"bad{number}", number / 100)
    assert len(book.keys.entries) == CAPACITY
    assert len(book.keys.look_ups._unknown) == UNKNOWN_LIMIT


def test_few_look_ups_are_under_way_at_once() -> None:
    book = Book()
    names = [f"k{number}" for number in range(ASKED_LIMIT + 3)]
    for name in names:
        assert book.wait(name) is None
    assert book.asked() == names[:ASKED_LIMIT]
    book.find(names[1], 1)
    assert book.asked() == [names[ASKED_LIMIT]]
    book.miss(names[0])
    assert book.asked() == [names[ASKED_LIMIT + 1]]


def test_a_new_control_is_asked_all_that_is_waited_for() -> None:
    book = Book()
    names = [f"k{number}" for number in range(ASKED_LIMIT + 3)]
    for name in names:
        book.wait(name)
    book.asked()
    book.keys.reconnected()
    book.keys.ask_again()
    assert book.asked() == names[:ASKED_LIMIT]
    for number, name in enumerate(names):
        book.find(name, number)
    assert book.woken == names
    assert book.asked() == names[ASKED_LIMIT:]


def test_few_requests_wait_for_keys() -> None:
    book = Book()
    for _ in range(WAITING_LIMIT):
        assert book.wait("a") is None
    for name in ("a", "b"):
        refusal = book.wait(name)
        assert refusal is not None and refusal.problem is OVERLOADED
    book.find("a", 1)
    assert len(book.woken) == WAITING_LIMIT
    assert book.wait("b") is None


def test_look_ups_that_find_nothing_are_rationed() -> None:
    book = Book()
    for second in range(4):
        allowed = 0
        for number in range(10_000):
            name, now = f"{second}-{number}", second + number / 10_000
            if book.wait(name, now) is None:
                book.miss(name, now)
                allowed += 1
        assert allowed <= MISSES_PER_S + (MISSES_BURST if second == 0 else 1)
        assert allowed >= MISSES_PER_S - 2
    refusal = book.wait("late", 4.0)
    if refusal is not None:
        assert refusal.problem is OVERLOADED
        assert (b"Retry-After", b"1") in refusal.headers


def test_look_ups_that_find_a_key_are_not() -> None:
    book = Book()
    for number in range(int(MISSES_BURST) * 3):
        assert book.wait(f"k{number}") is None
        book.find(f"k{number}", number)


def test_few_requests_wait_for_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """While control is away nobody takes them from the queue, not even those that have long gone."""
    monkeypatch.setattr(keybook, "WAITING_LIMIT", 3)
    book = Book()
    public_id, key = new_key()
    conf = KeyConf(1, public_id, digest(key.encode()), 1, None, False, None, (), 100, 1)
    book.keys.found(KeyFound(public_id, conf), 0.0)
    facts = Facts()
    facts.key = book.keys.entries[public_id]
    facts.lease = facts.key.lease
    route = compile_snapshot(1, (), [service(1, "s", "http://127.0.0.1:1")]).router.match(b"/s", b"", b"GET")
    assert route is not None
    facts.route = route
    refusals = [book.keys.when_leased(facts, lambda: None) for _ in range(5)]
    assert refusals[:3] == [None] * 3
    assert [refusal.problem for refusal in refusals[3:] if refusal] == [OVERLOADED] * 2


@pytest.mark.anyio
async def test_on_the_wire(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """One made-up key waits for control; with no room for more, the next hears 503 and the known one is served."""
    monkeypatch.setattr(lookups, "WAITING_LIMIT", 1)
    request = GET.replace(b"/open/", b"/keyed/").replace(b"Host", b"X-API-Key: %b\r\nHost")
    public_id, made_up = new_key()
    first = await wire.client()
    await first.send(request % made_up.encode())
    await wire.settled(lambda: len(wire.worker.exchanges) == 1)
    second = await wire.ask(request % new_key()[1].encode())
    assert second.status == 503
    assert b'"code":"overloaded"' in second.body
    assert (await wire.ask(request % wire.key)).status == 200
    wire.worker._on_message(KeyFound(public_id, None))
    answer = await first.message()
    assert answer.status == 401
    assert b'"code":"invalid_key"' in answer.body
    assert (await wire.ask(request % made_up.encode())).status == 401
    assert [(each.status, each.flags) for each in wire.records()] == [(503, 0), (200, 1), (401, 0), (401, 0)]
