"""The demo's callers: who sends what, and what they were answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

CONCURRENCY = 8  # of each caller
REVOKED_WITHIN_S = 0.1  # SPEC 3: on every worker
_LONGEST_S = 60

Request = tuple[str, str, object]  # method, path, JSON to send


@dataclass
class Caller:
    """A program that holds a key: sends `amount` requests, or goes on until `stop` is set."""

    name: str
    key: str
    services: tuple[str, ...]
    amount: int | None = None
    answers: Counter[int] = field(default_factory=Counter)
    late: int = 0  # answered although the key had been revoked for REVOKED_WITHIN_S
    revoked_at: float | None = None
    stop: bool = False

    @property
    def sent(self) -> int:
        return self.answers.total()

    @property
    def admitted(self) -> int:
        """Refused before it reached an API: without a valid key, or above a limit."""
        return self.sent - self.answers[401] - self.answers[429]

    @property
    def billable(self) -> int:
        return sum(n for status, n in self.answers.items() if 200 <= status < 400)

    def requests(self) -> Iterator[Request]:
        dice = random.Random(self.name)
        number = 0
        while not self.stop and (self.amount is None or number < self.amount):
            number += 1
            yield _request(dice, dice.choice(self.services), number)


def _request(dice: random.Random, service: str, number: int) -> Request:
    if number % 100 == 50:
        return "GET", f"/{service}/slow?ms=150", None
    if number % 100 == 75:
        return "GET", f"/{service}/fail", None
    if number % 10 == 5 and service == "orders":
        lines = [{"sku": f"P-{dice.randint(1, 24):04}", "quantity": dice.randint(1, 5)}]
        return "POST", "/orders/", {"customer": "Ines Roth", "lines": lines}
    if number % 10 == 7:
        return "GET", f"/{service}/?limit=50", None
    return "GET", f"/{service}/{dice.randint(1, 24)}", None


async def send(url: str, callers: list[Caller], revoke: Callable[[], None], revoked: Caller, after: int) -> float:
    """All callers at once. When `revoked` has had `after` answers its key is revoked, in a thread, under full load.

    Returns the seconds it took. Raises httpx.HTTPError or TimeoutError when a request is not answered, and what
    `revoke` raises.
    """
    began = time.monotonic()
    try:
        async with (
            httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client,
            asyncio.timeout(_LONGEST_S),
            asyncio.TaskGroup() as group,
        ):
            for caller in callers:
                work = caller.requests()
                for _ in range(CONCURRENCY):
                    group.create_task(_call(client, caller, work))
            group.create_task(_revoke(revoke, revoked, after))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # the others follow from the first
    return time.monotonic() - began


async def _call(client: httpx.AsyncClient, caller: Caller, work: Iterator[Request]) -> None:
    for method, path, sent in work:
        revoked_at, began = caller.revoked_at, time.monotonic()
        answer = await client.request(method, path, json=sent, headers={"X-API-Key": caller.key})
        caller.answers[answer.status_code] += 1
        if revoked_at is not None and began > revoked_at + REVOKED_WITHIN_S and answer.status_code != 401:
            caller.late += 1


async def _revoke(revoke: Callable[[], None], caller: Caller, after: int) -> None:
    await _until(lambda: caller.sent >= after)
    await asyncio.to_thread(revoke)
    caller.revoked_at, sent = time.monotonic(), caller.sent
    await _until(lambda: caller.sent >= sent + after)
    caller.stop = True


async def _until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)
