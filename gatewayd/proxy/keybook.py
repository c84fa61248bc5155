"""What a worker knows of keys, and how it comes to know more.

Keys are looked up at control on first use and remembered until control says that they changed, or until a newer key
needs the place. Requests that wait for a key or for tokens of one queue here as callbacks; each is called once when the
news has come and asks its guard again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gatewayd.channel import FromWorker, Held, KeyFound, LeaseAsked, LeaseGranted, LeaseReturned
from gatewayd.errors import OVERLOADED, RETRY_SOON, Refusal
from gatewayd.policy.spending import KeyEntry, KeyLease
from gatewayd.proxy.lookups import LookUps, Wake

# Requests that wait for tokens, those among them that have gone meanwhile too: while control is away, these must not
# pile up for as long as that takes.
WAITING_LIMIT = 8192
_BUSY = Refusal(OVERLOADED, "too many requests are waiting for the limits of their keys", RETRY_SOON)
IDLE_RETURN_S = 1.0  # a surplus that no ask has touched for so long goes back


class KeyBook:
    """Entries by public id and by row number; the queues."""

    def __init__(self, send: Callable[[FromWorker], None], capacity: int) -> None:
        self._send = send
        self._capacity = capacity
        self.look_ups = LookUps(send)
        self.entries: dict[str, KeyEntry] = {}
        self._by_id: dict[int, KeyEntry] = {}
        self._digest_names: dict[str, set[str]] = {}  # by public id: other names under which an entry stands
        self._awaiting_lease: dict[int, deque[Wake]] = {}
        self._waiting = 0  # in all of these
        self._with_surplus: set[int] = set()

    def __repr__(self) -> str:
        return f"<KeyBook {len(self.entries)} keys, {len(self._awaiting_lease)} queues>"

    def in_hand(self, key_id: int) -> int:
        """Tokens of this key that the next request would spend without asking."""
        entry = self._by_id.get(key_id)
        return entry.lease.surplus if entry is not None and entry.lease is not None else 0

    # Needs of requests.

    def when_leased(self, entry: KeyEntry, wake: Wake) -> Refusal | None:
        """Call `wake` once when control has answered for this key's limits. A refusal where too many wait."""
        assert entry.lease is not None
        if self._waiting >= WAITING_LIMIT:
            return _BUSY
        self._waiting += 1
        self._awaiting_lease.setdefault(entry.conf.id, deque()).append(wake)
        if not entry.lease.asked:
            self._ask(entry.lease)
        return None

    def ask_ahead(self, lease: KeyLease) -> None:
        """The surplus runs low: ask for more before a request has to wait for it."""
        self._ask(lease)

    def _ask(self, lease: KeyLease) -> None:
        lease.asked = True
        spent, lease.spent = lease.spent, 0
        self._send(LeaseAsked(lease.key_id, len(self._awaiting_lease.get(lease.key_id, ())), spent))

    # News from control.

    def found(self, message: KeyFound, now: float) -> None:
        conf = message.key
        if conf is None:
            waiting = self.look_ups.missed(message.public_id, now)
        else:
            entry = self._by_id.get(conf.id)
            if entry is None:
                entry = self._by_id[conf.id] = KeyEntry(conf)
            else:
                self._hand_back(entry)
                self._renew(entry, KeyEntry(conf))
            self._remember(message.public_id, entry)
            waiting = self.look_ups.found(message.public_id)
        for wake in waiting:
            wake()

    def _renew(self, entry: KeyEntry, fresh: KeyEntry) -> None:
        """The same key with other limits: requests in flight still refer to the entry, so it changes in place."""
        entry.conf, entry.bounds = fresh.conf, fresh.bounds
        if entry.lease is None or fresh.lease is None or entry.lease.limits != fresh.lease.limits:
            entry.lease = fresh.lease

    def granted(self, message: LeaseGranted, now: float) -> None:
        entry = self._by_id.get(message.key_id)
        if entry is None or entry.lease is None:
            self._send(LeaseReturned(message.key_id, message.surplus, message.granted - message.surplus, 0))
            return
        lease = entry.lease
        lease.granted(message, now)
        if lease.surplus:
            self._with_surplus.add(message.key_id)
        waiting = self._awaiting_lease.pop(message.key_id, ())
        self._waiting -= len(waiting)
        for wake in waiting:
            wake()
        if lease.waiting_tokens:  # their requests have gone meanwhile
            unused, lease.waiting_tokens = lease.waiting_tokens, 0
            spent, lease.spent = lease.spent, 0
            self._send(LeaseReturned(message.key_id, 0, unused, spent))

    def forget(self, public_ids: tuple[str, ...] | None) -> None:
        """These keys changed (None: any may have): the next request looks them up again. Surpluses go back."""
        self.look_ups.forget(public_ids)
        for public_id in list(self.entries) if public_ids is None else public_ids:
            entry = self._pop(public_id)
            if entry is not None:
                self._hand_back(entry)
                self._drop_unless_busy(entry)

    def reconnected(self, now: float) -> list[Held]:
        """Control is back and has forgotten what it leased: say what is held, and ask again for what is waited for."""
        held = []
        for entry in self._by_id.values():
            lease = entry.lease
            if lease is None:
                continue
            left = lease.news(entry.conf.rates, now)
            if lease.surplus or entry.in_flight or left:
                held.append(Held(entry.conf.id, lease.surplus, entry.in_flight, left))
            lease.asked = False
            lease.spent = 0
        self.entries.clear()  # changes may have been missed
        self._digest_names.clear()
        self.look_ups.forget(None)
        for entry in list(self._by_id.values()):
            if entry.lease is None or not entry.lease.surplus:
                self._drop_unless_busy(entry)
        return held

    def ask_again(self) -> None:
        """After `reconnected` was told: repeat every look-up and ask that the old connection took with it."""
        self.look_ups.ask_again()
        for key_id in list(self._awaiting_lease):
            lease = self._by_id[key_id].lease
            if lease is not None:
                self._ask(lease)

    # Upkeep.

    def return_idle(self, now: float) -> None:
        """Surpluses that no ask has touched for a second go back; other workers may need them."""
        for key_id in list(self._with_surplus):
            entry = self._by_id.get(key_id)
            if entry is None or entry.lease is None or (not entry.lease.surplus and not entry.lease.spent):
                self._with_surplus.discard(key_id)
            elif now - entry.lease.touched_at > IDLE_RETURN_S:
                self._hand_back(entry)

    def _hand_back(self, entry: KeyEntry) -> None:
        lease = entry.lease
        if lease is None or not (lease.surplus or lease.spent):
            return
        self._send(LeaseReturned(entry.conf.id, lease.surplus, 0, lease.spent))
        lease.surplus = lease.spent = lease.low = 0
        self._with_surplus.discard(entry.conf.id)

    def _remember(self, public_id: str, entry: KeyEntry) -> None:
        entries = self.entries
        if public_id not in entries and len(entries) >= self._capacity:
            self._make_room()
        entries[public_id] = entry
        if public_id != entry.conf.public_id:
            self._digest_names.setdefault(entry.conf.public_id, set()).add(public_id)

    def _pop(self, public_id: str) -> KeyEntry | None:
        """Take this key out under all its names: one that was imported stands under that of its digest."""
        entry = self.entries.pop(public_id, None)
        for name in self._digest_names.pop(public_id, ()):
            entry = self.entries.pop(name, None) or entry
        return entry

    def _make_room(self) -> None:
        """Second chance (the clock algorithm): the oldest goes unless it was used since it last came round."""
        entries = self.entries
        for _ in range(len(entries)):
            public_id = next(iter(entries))
            entry = entries.pop(public_id)
            if not entry.recently_used and not self._is_busy(entry):
                self._pop(entry.conf.public_id)
                self._hand_back(entry)
                self._drop_unless_busy(entry)
                return
            entry.recently_used = False
            entries[public_id] = entry

    def _is_busy(self, entry: KeyEntry) -> bool:
        """Requests refer to it, or news of it is on the way."""
        lease = entry.lease
        return entry.in_flight > 0 or (
            lease is not None and (lease.asked or bool(lease.waiting_tokens) or entry.conf.id in self._awaiting_lease)
        )

    def _drop_unless_busy(self, entry: KeyEntry) -> None:
        if not self._is_busy(entry):
            self._by_id.pop(entry.conf.id, None)
