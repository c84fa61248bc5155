"""Accounts: who has buckets, of which rates, and what is kept of them for the lessor that comes after this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gatewayd.conf import RateConf
from gatewayd.policy.buckets import Bucket


class Account(NamedTuple):
    """Who has buckets. `scope` as in `LimitConf`; a client has the key's number and its own."""

    scope: str
    id: int
    client_id: int = 0


class Part(NamedTuple):
    """One of the accounts of a lease, with its rates."""

    account: Account
    rates: tuple[RateConf, ...]


class Levels(Protocol):
    """What outlives a lessor."""

    def find(self, account: Account, rate: RateConf, now_ns: int) -> Bucket | None:
        """The bucket as it was saved, with what was away as unclaimed; None for one that was full or never was."""

    def save(self, account: Account, bucket: Bucket) -> None: ...

    def release(self, bucket: Bucket) -> None:
        """It is full, or no more."""


class NoLevels:
    """For a lessor that has nothing to remember."""

    def find(self, account: Account, rate: RateConf, now_ns: int) -> Bucket | None:
        return None

    def save(self, account: Account, bucket: Bucket) -> None:
        pass

    def release(self, bucket: Bucket) -> None:
        pass


@dataclass(slots=True, eq=False)
class Books:
    """The buckets of an account, in the order of its rates."""

    account: Account
    rates: tuple[RateConf, ...]
    buckets: list[Bucket]

    @property
    def is_shared(self) -> bool:
        """By many keys."""
        return self.account.scope in ("route", "tenant")

    def is_full(self, now_ns: int) -> bool:
        for bucket in self.buckets:
            bucket.refill(now_ns)
        return all(bucket.is_full() for bucket in self.buckets)


def fitted(bucket: Bucket, rate: RateConf) -> Bucket:
    if (bucket.limit, bucket.burst) == (rate.limit, rate.burst):
        return bucket
    return bucket.resized(rate.limit, rate.burst)
