"""What a worker tells of requests that might be, and of those that have been."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from msgspec.structs import replace

from gatewayd.channel import (
    Explained,
    Finding,
    FindKey,
    Found,
    FromWorker,
    Inquiry,
    KeyFound,
    LeaseAsked,
    LeaseGranted,
    LeaseId,
    Left,
    LimitConf,
    Question,
    Recall,
    SnapshotChanged,
    WhatIf,
)
from gatewayd.conf import KeyConf, RateConf, RouteConf, TargetConf, TenantConf
from gatewayd.errors import MISSING_KEY
from gatewayd.keys import digest, new_key
from gatewayd.policy.guards import ORDER
from gatewayd.policy.spending import Lease
from gatewayd.proxy import what_if
from gatewayd.proxy.explain import Explainer
from gatewayd.proxy.recent import LONGEST_KEPT, Kept
from gatewayd.records import SEGMENT_BYTES
from gatewayd.told import OTHERS_KEPT, REFUSED_KEPT, SAMPLED, Told
from tests.wire.harness import GET, Wire, service, services
from tests.wire.peer import Message

RATES = (RateConf("minute", 60, 60, 60),)
LIMITS = (LimitConf("minute", 60, 60, "", 60),)


class Control:
    """The other end of the channel: keys, and what is left of their limits."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.keys: dict[str, KeyConf] = {}
        self.left: tuple[Left, ...] = (Left(12, 0.8),)
        self.blocked_by: int | None = None
        self.asked: list[object] = []
        self.sent: list[FromWorker] = []
        wire.worker.explainer = Explainer(wire.worker, self._hear)

    def key(self, **other: Any) -> tuple[str, str]:
        """A key that control knows and the worker does not: its public id and the whole."""
        public_id, key = new_key()
        fields: dict[str, Any] = {"services": None, "revoked": False, "expires_at": None, "quota": None} | other
        self.keys[public_id] = KeyConf(
            id=50 + len(self.keys), public_id=public_id, digest=digest(key.encode()), tenant_id=1, rates=RATES,
            price_id=1, **fields,
        )  # fmt: skip
        return public_id, key

    def what_if(self, head: bytes, public_id: str | None = None, secret: bytes | None = None) -> Told:
        self._wire.worker._on_message(WhatIf(1, head, "10.0.0.9", public_id, secret))
        return self._told()

    def recall(self, answer: Message) -> Told:
        self._wire.worker._on_message(Recall(1, answer.one(b"x-request-id").decode()))
        return self._told()

    def _told(self) -> Told:
        message = self.sent.pop()
        assert isinstance(message, Explained) and message.told is not None
        return message.told

    def _hear(self, message: FromWorker) -> None:
        if not isinstance(message, Inquiry):
            self.sent.append(message)
            return
        self.asked.append(message.question)
        loop_answer = Finding(message.ask, self._answer(message.question))
        self._wire.worker.loop.call_soon(self._wire.worker._on_message, loop_answer)

    def _answer(self, question: Question) -> Found:
        if isinstance(question, FindKey):
            return KeyFound(question.public_id, self.keys.get(question.public_id))
        assert isinstance(question, LeaseAsked)
        granted = 0 if self.blocked_by is not None else question.count
        return LeaseGranted(question.lease, granted, 0, self.left, self.blocked_by, 1, LIMITS)


async def ask(control: Control, wire: Wire, head: bytes, **who: Any) -> Told:
    """A what-if whose answer takes a round trip to control."""
    wire.worker._on_message(WhatIf(1, head, "10.0.0.9", who.get("public_id"), who.get("secret")))
    await wire.settled(lambda: bool(control.sent))
    return control._told()


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: api", *lines, "", ""]).encode()


def refusing(told: Told) -> str:
    """The name of the one step that refuses."""
    (step,) = [step.step for step in told.steps if step.outcome == "refuse"]
    return step


# Requests that might be.


async def test_an_open_service_admits_and_what_its_target_would_get_is_told(wire: Wire) -> None:
    control = Control(wire)
    told = control.what_if(get("/based/a/b?q=1", "X-User-Id: 7", "Accept: */*"))
    assert (told.outcome, told.status, told.code, told.would_pass) == ("admitted", None, None, None)
    assert told.forward is not None
    assert told.forward.url == f"http://127.0.0.1:{wire.upstream.port}/base/a/b?q=1"
    assert set(told.forward.headers_set) >= {"Host", "X-Forwarded-For", "X-Request-Id"}
    assert told.forward.headers_removed == ("X-User-Id",)
    assert told.steps[1].detail == "service based of tenant default, as /a/b"
    assert (told.request.method, told.request.path, told.request.address) == ("GET", "/based/a/b", "10.0.0.9")
    assert wire.upstream.requests == []


async def test_steps_come_in_the_order_of_the_guards(wire: Wire) -> None:
    told = Control(wire).what_if(GET)
    assert len(told.steps) == len(ORDER) + 4
    assert [step.step for step in told.steps][:3] == ["head", "address", "gateway"]
    assert told.steps[-1].step == "upstream"


async def test_a_key_that_is_named_is_believed_and_its_limits_are_told(wire: Wire) -> None:
    control = Control(wire)
    public_id, _key = control.key()
    told = await ask(control, wire, get("/keyed/x"), public_id=public_id)
    assert told.outcome == "admitted"
    steps = {step.step: step for step in told.steps}
    assert steps["key"].detail == f"taken as given: --key names gw_{public_id}"
    assert re.fullmatch(
        r"minute: 60 per 60 s, burst 60; 12 left, one more in 0\.\d s", steps["limits"].limits[0].detail
    )
    assert control.asked == [FindKey(public_id), LeaseAsked(LeaseId(50), 1, 0)]
    assert wire.worker.keys.entries.keys() == {wire.key[3:11].decode()}  # the worker has learnt nothing


async def test_what_the_worker_has_in_hand_is_left_and_stays(wire: Wire) -> None:
    control = Control(wire)
    public_id, key = control.key()
    wire.worker.keys.found(KeyFound(public_id, control.keys[public_id]), 0.0)
    entry = wire.worker.keys.entries[public_id]
    assert entry.lease is not None
    wire.worker.keys._leases[entry.lease.id] = entry.lease
    entry.lease.granted(LeaseGranted(LeaseId(50), 3, 3, (Left(0, 0.5),), None, 1, LIMITS), 0.0)
    control.left, control.blocked_by = (Left(0, 0.5),), 0
    for _ in range(3):
        told = await ask(control, wire, get("/keyed/x"), secret=key.encode())
        assert told.outcome == "admitted"
        assert [limit.remaining for step in told.steps for limit in step.limits] == [3]
    assert (entry.lease.surplus, entry.lease.spent, entry.in_flight) == (3, 0, 0)


async def test_leases_of_requests_without_a_key_are_not_touched(wire: Wire) -> None:
    control = Control(wire)
    confs = services(f"http://127.0.0.1:{wire.upstream.port}")
    shared = RouteConf(5, "rte_a", 1, 1, "/shared", rates=RATES, weight=2)
    wire.worker._install(SnapshotChanged(1, (TenantConf(1, "default", False),), confs, (shared,)))
    route = wire.worker.snapshot.router.match(b"/shared/x", b"api", b"GET")
    assert route is not None and route.shared is not None
    lease = route.shared.leases[LeaseId(0, 0, 5, 0)] = Lease(LeaseId(0, 0, 5, 0))
    wire.worker.keys._leases[lease.id] = lease
    for in_hand in (1, 4):
        lease.surplus = in_hand
        for _ in range(3):
            assert (await ask(control, wire, get("/shared/x"))).outcome == "admitted"
        assert (lease.surplus, lease.spent, lease.waiting_tokens) == (in_hand, 0, 0)


async def test_a_request_that_weighs_more_is_told_when_there_is_enough(wire: Wire) -> None:
    control = Control(wire)
    confs = services(f"http://127.0.0.1:{wire.upstream.port}")
    shared = RouteConf(5, "rte_a", 1, 1, "/heavy", rates=RATES, weight=5)
    wire.worker._install(SnapshotChanged(1, (TenantConf(1, "default", False),), confs, (shared,)))
    told = await ask(control, wire, get("/heavy/x"))
    assert "5 are left" in [step.detail for step in told.steps]
    control.left, control.blocked_by = (Left(0, 0.6),), 0
    told = await ask(control, wire, get("/heavy/x"))
    assert refusing(told) == "all-limits"
    (detail,) = [step.detail for step in told.steps if step.outcome == "refuse"]
    assert detail.endswith("more in 5 s")
    assert told.would_pass == "wait 5 s, or take a plan with a higher rate or burst"


async def test_a_service_that_nobody_has_named_yet_is_not_named(wire: Wire) -> None:
    control = Control(wire)
    confs = services(f"http://127.0.0.1:{wire.upstream.port}")
    wire.worker._install(
        SnapshotChanged(1, (TenantConf(1, "default", False),), confs, (RouteConf(5, "rte_a", 1, None, "/k"),))
    )
    told = control.what_if(get("/k/x"))
    assert {step.step: step.detail for step in told.steps}["room"] == "it depends on the key"
    assert told.would_pass == "an API key; this makes one: gatectl key create --service NAME"


async def test_an_empty_limit_refuses_with_what_to_wait_for(wire: Wire) -> None:
    control = Control(wire)
    public_id, _key = control.key()
    control.left, control.blocked_by = (Left(0, 22.4),), 0
    told = await ask(control, wire, get("/keyed/x"), public_id=public_id)
    assert (told.outcome, told.status, told.code) == ("refused", 429, "rate_limited")
    assert refusing(told) == "limits"
    assert told.would_pass == "wait 23 s, or take a plan with a higher rate or burst"


@pytest.mark.parametrize(
    ("other", "path", "step", "code", "would_pass"),
    [
        ({"revoked": True}, "/keyed/", "validity", "revoked_key", "gatectl key create --service keyed"),
        ({"expires_at": 1e9}, "/keyed/", "validity", "expired_key", "gatectl key set {key} --expires 90d"),
        ({"services": frozenset({9})}, "/keyed/", "scope", "key_not_allowed", "--service own --service keyed"),
        ({}, "/nowhere-at-all", "address", "no_route", "gatectl service list"),
    ],
)
async def test_a_refusal_names_its_step_and_its_remedy(
    wire: Wire, other: dict[str, Any], path: str, step: str, code: str, would_pass: str
) -> None:
    control = Control(wire)
    public_id, key = control.key(**other)
    told = await ask(control, wire, get(path), public_id=public_id)
    assert (told.outcome, told.code, refusing(told)) == ("refused", code, step)
    assert would_pass.format(key=f"gw_{public_id}") in (told.would_pass or "")
    wire.worker.keys.found(KeyFound(public_id, control.keys[public_id]), 0.0)
    real = await wire.ask(get(path, f"X-API-Key: {key}"))
    assert (real.status, code.encode() in real.body) == (told.status, True)


async def test_a_key_that_is_shown_is_proven(wire: Wire) -> None:
    control = Control(wire)
    _public_id, key = control.key()
    assert (await ask(control, wire, get("/own/x"), secret=key.encode())).outcome == "admitted"
    _, other = new_key()
    told = await ask(control, wire, get("/own/x"), secret=other.encode())
    assert (told.code, refusing(told)) == ("invalid_key", "key")
    mistyped = await ask(control, wire, get("/own/x"), secret=key[:-1].encode() + b"!")
    assert mistyped.code == "invalid_key"
    assert key[12:] not in str((told, mistyped))


async def test_without_a_key_it_is_missing(wire: Wire) -> None:
    told = Control(wire).what_if(get("/keyed/x"))
    assert (told.status, told.code, refusing(told)) == (401, "missing_key", "key")
    outcomes = [step.outcome for step in told.steps]
    assert set(outcomes[outcomes.index("refuse") + 1 :]) == {"skip"}


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"GET /open/../x HTTP/1.1\r\nHost: api\r\n\r\n", "bad_request"),
        (b"GET /open/ HTTP/1.1\r\n\r\n", "bad_request"),
        (b"GET /open/ HTTP/1.1\r\nHost: api\r\nHost: api\r\n\r\n", "bad_request"),
        (b"BREW /open/ HTTP/1.1\r\nHost: api\r\n\r\n", "not_implemented"),
        (b"GET /open/" + b"x" * 9000 + b" HTTP/1.1\r\nHost: api\r\n\r\n", "target_too_long"),
        (b"GET /open/ HTTP/1.1\r\nHost: api\r\nA: " + b"x" * 40000 + b"\r\n\r\n", "head_too_large"),
        (b"GET /open/ HTTP/1.1\r\nHost: api\r\n\r\nGET / HTTP/1.1\r\n\r\n", "bad_request"),
    ],
)
async def test_a_head_is_judged_as_on_the_wire(wire: Wire, head: bytes, code: str) -> None:
    told = Control(wire).what_if(head)
    assert (told.code, refusing(told)) == (code, "head")
    if head.count(b"\r\n\r\n") == 1:
        assert code.encode() in (await wire.ask(head)).body


async def test_a_long_body_is_refused_by_its_declared_length(wire: Wire) -> None:
    told = Control(wire).what_if(b"POST /small/ HTTP/1.1\r\nHost: api\r\nContent-Length: 101\r\n\r\n")
    assert (told.status, refusing(told)) == (413, "body")


async def test_a_place_in_flight_is_not_taken(wire: Wire) -> None:
    url = f"http://127.0.0.1:{wire.upstream.port}"
    wire.serve(service(1, "open", url, in_flight_limit=1))
    control = Control(wire)
    for _ in range(3):
        assert control.what_if(GET).outcome == "admitted"
    assert wire.worker.snapshot.services[1].in_flight == set()


async def test_whose_turn_it_is_does_not_change(wire: Wire) -> None:
    conf = service(1, "open", "http://127.0.0.1:1")
    targets = (TargetConf("http://127.0.0.1:1", 1), TargetConf("http://127.0.0.1:2", 1))
    conf = type(conf)(**{name: getattr(conf, name) for name in conf.__struct_fields__} | {"targets": targets})
    wire.serve(conf)
    control = Control(wire)
    told = {str(control.what_if(GET).forward) for _ in range(4)}
    assert len(told) == 1


async def test_a_target_that_goes_while_control_is_asked(wire: Wire) -> None:
    control = Control(wire)
    public_id, _ = control.key()
    confs = services(f"http://127.0.0.1:{wire.upstream.port}")
    gone = tuple(replace(conf, targets=(replace(conf.targets[0], drained=True),)) for conf in confs)
    answer = control._answer

    def drained(question: Question) -> Found:
        if isinstance(question, LeaseAsked):
            wire.worker._install(SnapshotChanged(1, (TenantConf(1, "default", False),), gone))
        return answer(question)

    control._answer = drained  # type: ignore[method-assign]
    told = await ask(control, wire, get("/keyed/x"), public_id=public_id)
    assert (told.outcome, told.code, refusing(told)) == ("refused", "no_healthy_target", "upstream")


async def test_a_suspended_tenant_is_told_before_anything_else(wire: Wire) -> None:
    url = f"http://127.0.0.1:{wire.upstream.port}"
    conf = service(2, "keyed", url, auth="key")
    wire.worker._install(SnapshotChanged(1, (TenantConf(1, "default", True),), (conf,)))
    told = Control(wire).what_if(get("/keyed/x"))
    assert (told.code, refusing(told)) == ("tenant_suspended", "tenant")
    assert told.would_pass == "the tenant must be resumed: gatectl tenant set default --resume"


async def test_a_failure_to_tell_is_an_answer_too(
    wire: Wire, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control(wire)
    monkeypatch.setattr(what_if, "read_head", lambda worker, head: 1 / 0)
    wire.worker._on_message(WhatIf(1, GET, "10.0.0.9"))
    assert control.sent == [Explained(1, None)]
    assert "could not be told" in caplog.text


# Requests that have been.


async def test_a_refusal_is_remembered_with_its_limits_as_they_were(wire: Wire) -> None:
    control = Control(wire)
    public_id, key = control.key()
    wire.worker.keys.found(KeyFound(public_id, control.keys[public_id]), 0.0)
    entry = wire.worker.keys.entries[public_id]
    assert entry.lease is not None
    entry.lease.granted(LeaseGranted(LeaseId(50), 0, 0, (Left(0, 0.9),), 0, 1, LIMITS), time.monotonic())
    refused = await wire.ask(get("/keyed/x?secret=1", f"X-API-Key: {key}"))
    entry.lease.granted(LeaseGranted(LeaseId(50), 0, 0, (Left(60, 0.9),), None, 1, LIMITS), time.monotonic())
    told = control.recall(refused)
    assert (told.outcome, told.status, told.code) == ("refused", 429, "rate_limited")
    assert re.fullmatch(
        r"minute: 60 per 60 s, burst 60; 0 left, one more in 0\.\d s",
        next(step for step in told.steps if step.step == "limits").limits[0].detail,
    )
    assert told.request.id == refused.one(b"x-request-id").decode()
    assert (told.request.path, told.request.key, told.request.address) == ("/keyed/x", f"gw_{public_id}", "127.0.0.1")
    assert re.fullmatch(r"wait 0\.\d s, or take a plan .*", told.would_pass or "")


async def test_a_target_that_cannot_be_reached_is_told_of(wire: Wire) -> None:
    told = Control(wire).recall(await wire.ask(get("/nowhere/x")))
    assert (told.outcome, told.status, told.code) == ("admitted", 502, "upstream_unreachable")
    assert told.steps[-1].outcome == "fail"
    assert "http://127.0.0.1:1" in told.steps[-1].detail
    assert told.would_pass == "a target that runs; these are tried: gatectl service show nowhere"


@pytest.mark.parametrize(
    ("request_", "step"),
    [
        (get("/nix"), "address"),
        (b"GET /open/../ HTTP/1.1\r\nHost: api\r\n\r\n", "head"),
        (get("/keyed/x"), "key"),
        (get("/keyed/x", "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.x"), "key"),
        (b"POST /small/ HTTP/1.1\r\nHost: api\r\nContent-Length: 101\r\n\r\n", "body"),
    ],
)
async def test_what_is_told_afterwards_is_what_was_told_before(wire: Wire, request_: bytes, step: str) -> None:
    control = Control(wire)
    before = control.what_if(request_)
    after = control.recall(await wire.ask(request_))
    assert refusing(before) == refusing(after) == step
    assert (before.status, before.code, before.would_pass) == (after.status, after.code, after.would_pass)


async def test_a_broken_answer_is_remembered(wire: Wire) -> None:
    wire.upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"

    async def answer_and_cut(upstream: Any, peer: Any) -> None:
        await peer.message()
        await peer.send(upstream.answer)
        peer.close()

    wire.upstream.script = answer_and_cut
    client = await wire.client()
    await client.send(get("/open/", "X-Request-Id: mine"))
    with pytest.raises(Exception):  # noqa: B017 (a reset or a cut, as it comes)
        await client.message()
    await wire.settled(lambda: wire.worker.recent.find(b"mine") is not None)
    control = Control(wire)
    wire.worker._on_message(Recall(1, "mine"))
    told = control._told()
    assert (told.outcome, told.status, told.code, told.steps[-1].outcome) == ("admitted", 200, None, "fail")


async def test_of_the_others_a_sample_is_kept(wire: Wire) -> None:
    client = await wire.client()
    answers = []
    for _ in range(2 * SAMPLED):
        await client.send(GET)
        answers.append(await client.message())
    kept = [answer for answer in answers if wire.worker.recent.find(answer.one(b"x-request-id"))]
    assert len(kept) == 2
    told = Control(wire).recall(kept[0])
    assert (told.outcome, told.status, told.code, told.would_pass) == ("admitted", 200, None, None)


async def test_a_flood_of_one_kind_pushes_no_other_out_and_all_is_bounded(wire: Wire) -> None:
    first = await wire.ask(get("/nix"))
    client = await wire.client()
    for _ in range(REFUSED_KEPT + 10):
        await client.send(get("/keyed/" + "x" * 1000))
        await client.message()
    assert Control(wire).recall(first).code == "no_route"
    recent = wire.worker.recent
    assert sum(len(ring) for ring in recent._refused.values()) == REFUSED_KEPT + 1
    assert recent._others.maxlen == OTHERS_KEPT
    flooded = recent._refused[MISSING_KEY.number][-1]
    assert Kept._make(flooded).path == b"/keyed/" + b"x" * (LONGEST_KEPT - 7)


async def test_nothing_secret_is_kept(wire: Wire) -> None:
    public_id, key = new_key()
    secrets = [key, "Bearer-of-others", "query-secret", wire.key.decode()]
    for header in (f"X-API-Key: {key}", "Authorization: Bearer Bearer-of-others", f"X-API-Key: {wire.key.decode()}"):
        wire.worker.keys.look_ups._unknown[public_id] = time.monotonic() + 60
        await wire.ask(get("/keyed/x?key=query-secret", header))
    kept = repr([list(ring) for ring in wire.worker.recent._refused.values()])
    assert not [secret for secret in secrets if secret[-16:] in kept]


async def test_a_connection_too_many_is_remembered(wire: Wire) -> None:
    wire.worker.door.limit = 0
    answer = await wire.ask(b"")
    told = Control(wire).recall(answer)
    assert (told.status, told.code, refusing(told)) == (503, "overloaded", "gateway")


async def test_a_request_for_which_the_journal_has_no_room_is_remembered(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = wire.worker.journal
    monkeypatch.setattr(journal, "prepare", lambda: None)
    journal._offset, journal.spare = SEGMENT_BYTES, None
    told = Control(wire).recall(await wire.ask(get("/open/x")))
    assert (told.status, told.code, refusing(told)) == (503, "journal_full", "gateway")
    assert "on_full" in (told.would_pass or "")


async def test_what_cannot_be_told_costs_no_link(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await wire.ask(get("/nix"))
    monkeypatch.setattr("gatewayd.proxy.explain.tell_kept", lambda *_: 1 // 0)
    control = Control(wire)
    wire.worker._on_message(Recall(1, answer.one(b"x-request-id").decode()))
    assert control.sent == [Explained(1, None)]


async def test_an_id_that_nobody_had_is_not_known(wire: Wire) -> None:
    control = Control(wire)
    wire.worker._on_message(Recall(4, "nobody's é"))
    assert control.sent == [Explained(4, None)]
