"""What a worker knows of keys, and how it comes to know more.

Keys are looked up at control on first use and remembered until control says that they changed, or until a newer key
needs the place. Requests that wait for a key or for tokens of one queue here as callbacks; each is called once when the
news has come and asks its guard again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gatewayd.channel import (
    ClientFound,
    FindClient,
    FromWorker,
    Held,
    KeyFound,
    KeyHeld,
    LeaseAsked,
    LeaseGranted,
    LeaseId,
    LeaseReturned,
    SlotsAsked,
    SlotsGranted,
    SlotsReturned,
)
from gatewayd.errors import OVERLOADED, RETRY_SOON, Refusal
from gatewayd.policy.facts import Facts
from gatewayd.policy.limiting import client_name, leases_of
from gatewayd.policy.spending import KeyEntry, Lease
from gatewayd.proxy.lookups import LookUps, Wake

# Requests that wait for tokens, those among them that have gone meanwhile too: while control is away, these must not
# pile up for as long as that takes.
WAITING_LIMIT = 8192
_BUSY = Refusal(OVERLOADED, "too many requests are waiting for the limits of their keys", RETRY_SOON)
IDLE_RETURN_S = 1.0  # a surplus that no ask has touched for so long goes back
# Of one key. Whose name is forgotten is looked up again.
CLIENTS_LIMIT = 1000
LEASES_LIMIT = 1000
# A caller can make up clients without end. After one that is not accepted the next of this key is not looked up for so
# long, but counts as not accepted: 50 look-ups a second.
CLIENT_MISS_PAUSE_S = 0.02


class KeyBook:
    """Entries by public id and by row number; the leases; the queues."""

    def __init__(self, send: Callable[[FromWorker], None], capacity: int) -> None:
        self._send = send
        self._capacity = capacity
        self.look_ups = LookUps(send)
        self.entries: dict[str, KeyEntry] = {}
        self._by_id: dict[int, KeyEntry] = {}
        self._digest_names: dict[str, set[str]] = {}  # by public id: other names under which an entry stands
        self._leases: dict[LeaseId, Lease] = {}  # those that control has been asked for
        self._awaiting_lease: dict[LeaseId, deque[Wake]] = {}
        self._awaiting_slots: dict[int, deque[Wake]] = {}  # by key, as the next
        self._awaiting_client: dict[tuple[int, str], list[Wake]] = {}
        self._waiting = 0  # in all of these
        self._with_surplus: set[LeaseId] = set()
        self._with_free_slots: set[int] = set()
        self.draining = False  # nothing is kept for requests to come

    def __repr__(self) -> str:
        return f"<KeyBook {len(self.entries)} keys, {len(self._awaiting_lease)} queues>"

    def in_hand(self, id_: LeaseId) -> int:
        """Tokens of this lease that the next request would spend without asking."""
        lease = self._leases.get(id_)
        return 0 if lease is None else lease.surplus

    # Needs of requests.

    def when_leased(self, facts: Facts, wake: Wake) -> Refusal | None:
        """Call `wake` once when control has answered for its lease. A refusal where too many wait."""
        if self._waiting >= WAITING_LIMIT:
            return _BUSY
        lease = self._registered(facts)
        self._waiting += 1
        lease.wants(facts.route.weight)
        self._awaiting_lease.setdefault(lease.id, deque()).append(wake)
        if not lease.asked:
            self._ask(lease)
        return None

    def _registered(self, facts: Facts) -> Lease:
        """The lease of a request. There is one of each, wherever it is remembered."""
        assert facts.lease is not None
        lease = self._leases.setdefault(facts.lease.id, facts.lease)
        if lease is not facts.lease:
            facts.lease = lease
            if facts.key is not None and facts.key.lease is not None and facts.key.lease.id == lease.id:
                facts.key.lease = lease
            else:
                leases_of(facts)[lease.id] = lease
        if facts.key is not None and len(facts.key.leases) > LEASES_LIMIT:
            self._forget_a_lease(facts.key, lease)
        return lease

    def _forget_a_lease(self, entry: KeyEntry, wanted: Lease) -> None:
        """The oldest that nobody waits for, but not this one. What is of no key is remembered elsewhere too."""
        for id_, lease in entry.leases.items():
            if lease is not wanted and not lease.is_busy:
                del entry.leases[id_]
                if id_.key_id:
                    self._return(lease)
                    self._leases.pop(id_, None)
                return

    def ask_ahead(self, lease: Lease) -> None:
        """The surplus runs low: ask for more before a request has to wait for it."""
        self._ask(lease)

    def _ask(self, lease: Lease) -> None:
        lease.asked = True
        spent, lease.spent = lease.spent, 0
        self._send(LeaseAsked(lease.id, lease.waiting_units, spent, lease.least, lease.terms))

    def when_slotted(self, entry: KeyEntry, wake: Wake) -> Refusal | None:
        """The same for a slot of this key."""
        if self._waiting >= WAITING_LIMIT:
            return _BUSY
        assert entry.more is not None  # else it has no such limit
        self._waiting += 1
        self._awaiting_slots.setdefault(entry.conf.id, deque()).append(wake)
        if not entry.more.slots.asked:
            self._ask_slots(entry)
        return None

    def _ask_slots(self, entry: KeyEntry) -> None:
        assert entry.more is not None
        entry.more.slots.asked = count = len(self._awaiting_slots[entry.conf.id])
        self._send(SlotsAsked(entry.conf.id, count))

    def leave_slot(self, entry: KeyEntry, request: object) -> None:
        """This request has ended. It may never have had one."""
        assert entry.more is not None
        slots = entry.more.slots
        if request not in slots.in_use:
            return
        slots.in_use.discard(request)
        if slots.keep and not self.draining:
            slots.free += 1
            slots.idle_since = 0.0
            self._with_free_slots.add(entry.conf.id)
        else:
            self._send(SlotsReturned(entry.conf.id, 1))
            self._drop_if_forgotten(entry)

    def when_client_known(self, facts: Facts, wake: Wake) -> Refusal | None:
        """The same for the client that a request names."""
        assert facts.key is not None and facts.key.more is not None  # else it has no clients
        if self._waiting >= WAITING_LIMIT:
            return _BUSY
        self._waiting += 1
        key_id, name = facts.key.conf.id, client_name(facts.fields)
        waiting = self._awaiting_client.setdefault((key_id, name), [])
        waiting.append(wake)
        if len(waiting) == 1:
            facts.key.more.look_ups += 1
            self._send(FindClient(key_id, name))
        return None

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
        """The same key with other terms: requests in flight still refer to the entry, so it changes in place."""
        entry.conf, entry.bounds, entry.is_unquestioned = fresh.conf, fresh.bounds, fresh.is_unquestioned
        if entry.lease is None or fresh.lease is None:
            if entry.lease is not None:
                entry.leases[entry.lease.id] = entry.lease
            entry.lease = fresh.lease
            if entry.lease is not None:
                entry.lease = entry.leases.pop(entry.lease.id, entry.lease)
        if entry.more is None or fresh.more is None:
            entry.more = entry.more or fresh.more  # slots of it may be in use
        if entry.more is not None:
            entry.more.clients.clear()

    def client_found(self, message: ClientFound, now: float) -> None:
        entry = self._by_id.get(message.key_id)
        if entry is not None and entry.more is not None:
            entry.more.look_ups -= 1
            clients = entry.more.clients
            if len(clients) >= CLIENTS_LIMIT:
                del clients[next(iter(clients))]
            clients[message.name] = message.client
            if message.client is None:
                entry.more.no_look_ups_until = now + CLIENT_MISS_PAUSE_S
        waiting = self._awaiting_client.pop((message.key_id, message.name), [])
        self._waiting -= len(waiting)
        for wake in waiting:
            wake()

    def granted(self, message: LeaseGranted, now: float) -> None:
        lease = self._leases.get(message.lease)
        if lease is None:
            self._send(LeaseReturned(message.lease, message.surplus, message.granted - message.surplus, 0))
            return
        lease.granted(message, now)
        if lease.surplus:
            self._with_surplus.add(message.lease)
        waiting = self._awaiting_lease.pop(message.lease, ())
        self._waiting -= len(waiting)
        lease.waiting_units = 0
        for wake in waiting:
            wake()
        if lease.waiting_tokens:  # their requests have gone meanwhile
            unused, lease.waiting_tokens = lease.waiting_tokens, 0
            spent, lease.spent = lease.spent, 0
            self._send(LeaseReturned(message.lease, 0, unused, spent))

    def slots_granted(self, message: SlotsGranted, now: float) -> None:
        entry = self._by_id.get(message.key_id)
        if entry is None or entry.more is None:
            self._send(SlotsReturned(message.key_id, message.granted))
            return
        slots = entry.more.slots
        slots.free += message.granted
        if message.granted:  # else the key may have more in flight than it is allowed now
            slots.keep = message.keep
        if message.granted < slots.asked:
            slots.denied_at = now
        slots.asked = 0
        waiting = self._awaiting_slots.pop(message.key_id, ())
        self._waiting -= len(waiting)
        for wake in waiting:
            wake()
        if slots.free:  # their requests have gone meanwhile
            self._return_slots(entry)

    def _return_slots(self, entry: KeyEntry) -> None:
        assert entry.more is not None
        free, entry.more.slots.free = entry.more.slots.free, 0
        if free:
            self._send(SlotsReturned(entry.conf.id, free))

    def forget(self, public_ids: tuple[str, ...] | None) -> None:
        """These keys changed (None: any may have): the next request looks them up again. Surpluses go back."""
        self.look_ups.forget(public_ids)
        for public_id in list(self.entries) if public_ids is None else public_ids:
            entry = self._pop(public_id)
            if entry is not None:
                self._hand_back(entry)
                self._drop_unless_busy(entry)

    def shared_limits_changed(self) -> None:
        """Rates of routes or tenants may be others now: nothing of what was given out under those before is spent."""
        for id_, lease in self._leases.items():
            if id_.route_id or id_.tenant_id:
                self._take_back(lease)

    def reconnected(self) -> tuple[list[Held], list[KeyHeld]]:
        """Control is back and has forgotten who holds what: say it, and ask again for what is waited for."""
        held = [Held(lease.id, lease.surplus) for lease in self._leases.values() if lease.surplus]
        out = {key_id: entry.in_flight for key_id, entry in self._by_id.items() if entry.in_flight}
        for each in held:
            key_id = each.lease.key_id
            if key_id:
                out[key_id] = out.get(key_id, 0) + each.unspent
        taken = {}
        for key_id, entry in self._by_id.items():
            if entry.more is not None:
                taken[key_id] = entry.more.slots.free + len(entry.more.slots.in_use)
                entry.more.slots.asked = 0
        for lease in self._leases.values():
            lease.asked = False
            lease.spent = 0
        self.entries.clear()  # changes may have been missed
        self._digest_names.clear()
        self.look_ups.forget(None)
        for entry in list(self._by_id.values()):
            if not any(lease.surplus for lease in entry.all_leases()):
                self._drop_unless_busy(entry)
        keys = [
            KeyHeld(key_id, out.get(key_id, 0), taken.get(key_id, 0))
            for key_id in out.keys() | taken.keys()
            if out.get(key_id) or taken.get(key_id)
        ]
        return held, keys

    def ask_again(self) -> None:
        """After `reconnected` was told: repeat every look-up and ask that the old connection took with it."""
        self.look_ups.ask_again()
        for id_ in list(self._awaiting_lease):
            self._ask(self._leases[id_])
        for key_id in list(self._awaiting_slots):
            self._ask_slots(self._by_id[key_id])
        for key_id, name in self._awaiting_client:
            self._send(FindClient(key_id, name))

    # Upkeep.

    def return_idle(self, now: float) -> None:
        """Surpluses that no ask has touched for a second go back; other workers may need them. Likewise slots."""
        for id_ in list(self._with_surplus):
            lease = self._leases.get(id_)
            if lease is None or (not lease.surplus and not lease.spent):
                self._with_surplus.discard(id_)
            elif now - lease.touched_at > IDLE_RETURN_S:
                self._return(lease)
        for key_id in list(self._with_free_slots):
            entry = self._by_id.get(key_id)
            slots = None if entry is None or entry.more is None else entry.more.slots
            if entry is None or slots is None or not slots.free:
                self._with_free_slots.discard(key_id)
            elif self.draining or 0 < slots.idle_since < now - IDLE_RETURN_S:
                self._return_slots(entry)
                self._drop_if_forgotten(entry)
            elif not slots.idle_since:
                slots.idle_since = now

    def _hand_back(self, entry: KeyEntry) -> None:
        for lease in entry.all_leases():
            self._take_back(lease)
        if entry.more is not None:
            entry.more.slots.keep = False  # those in use may be more than it is allowed now
            self._return_slots(entry)

    def _take_back(self, lease: Lease) -> None:
        self._return(lease)
        lease.blocked_until = 0.0  # by limits that may be others now

    def _return(self, lease: Lease) -> None:
        if lease.surplus or lease.spent:
            self._send(LeaseReturned(lease.id, lease.surplus, 0, lease.spent))
            lease.surplus = lease.spent = lease.low = 0
            self._with_surplus.discard(lease.id)

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
        if entry.in_flight > 0 or any(lease.is_busy for lease in entry.all_leases()):
            return True
        if entry.more is None:
            return False
        slots = entry.more.slots
        taken = slots.in_use or slots.free or slots.asked or entry.conf.id in self._awaiting_slots
        return bool(taken or entry.more.look_ups)

    def _drop_unless_busy(self, entry: KeyEntry) -> None:
        if not self._is_busy(entry) and self._by_id.get(entry.conf.id) is entry:
            del self._by_id[entry.conf.id]
            for lease in entry.all_leases():
                if lease.id.key_id:
                    self._return(lease)  # what came after it was forgotten
                    self._leases.pop(lease.id, None)

    def _drop_if_forgotten(self, entry: KeyEntry) -> None:
        """It was kept only for what is gone now."""
        public_id = entry.conf.public_id
        names = (public_id, *self._digest_names.get(public_id, ()))
        if not any(self.entries.get(name) is entry for name in names):
            self._drop_unless_busy(entry)
