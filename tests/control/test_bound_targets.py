"""Who is bound to a tenant names no target and no receiver on the gateway's own machine, also not by way of DNS: who
has named which is kept, and what control itself asks of them goes nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlmodel import col, select

from gatewayd.conf import HealthConf, TargetConf, TlsConf
from gatewayd.control import asking
from gatewayd.control.compile import snapshot
from gatewayd.control.probe import probe
from gatewayd.control.tables import Alert
from gatewayd.control.webhooks import post_over_http
from gatewayd.own_machine import MOST_JUDGED
from tests.control.conftest import Admin, Holder
from tests.control.test_config import applied
from tests.control.test_probing import TlsUpstream
from tests.names import Names
from tests.receiver import receiver
from tests.wire.harness import Upstream

A, B, C = "http://a.example", "http://b.example", "http://c.example"
HEALTH = HealthConf(path="/health")


@pytest.fixture
def operator(admin: Admin) -> Holder:
    admin.post("/v1/tenants", slug="acme")
    return admin.holder("operator", "acme")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def bound(admin: Admin) -> dict[str, bool]:
    """The targets of the one service, as workers are told of them."""
    (service,) = snapshot(admin.control.database.lookup).services
    return {target.url: target.bound for target in service.targets}


# Who has named a target


def test_of_one_who_is_bound_and_of_one_who_is_not(admin: Admin, operator: Holder) -> None:
    operator.post("/v1/services", slug="orders", targets=[A])
    assert bound(admin) == {A: True}
    admin.patch("/v1/services/orders?tenant=acme", targets=[A])
    assert bound(admin) == {A: False}  # whoever names it answers for it
    operator.patch("/v1/services/orders", targets=[B, A])
    assert bound(admin) == {B: True, A: False}
    operator.patch("/v1/services/orders", targets=[B])
    operator.patch("/v1/services/orders", targets=[A, B])
    assert bound(admin) == {A: True, B: True}  # A has gone and come: now it is this one's


def test_who_changes_something_else_answers_for_no_target(admin: Admin, operator: Holder) -> None:
    operator.post("/v1/services", slug="orders", targets=[A, B])
    admin.patch("/v1/services/orders?tenant=acme", weights={A: 3}, timeout_s=5, health={"path": "/health"})
    admin.post("/v1/targets/drain?tenant=acme", target=A)
    assert bound(admin) == {A: True, B: True}
    conf = snapshot(admin.control.database.lookup).services[0]
    assert conf.targets == (TargetConf(A, 3, True, True), TargetConf(B, 1, False, True))


def test_an_admin_of_the_tenant_is_bound_too(admin: Admin, operator: Holder) -> None:
    admin.holder("admin", "acme").post("/v1/services", slug="orders", targets=[A])
    assert bound(admin) == {A: True}


def test_an_apply_answers_for_what_it_adds(admin: Admin, operator: Holder) -> None:
    operator.post("/v1/services", slug="orders", targets=[A])
    document = admin.get("/v1/config", tenant="acme")
    assert "bound" not in str(document)
    (service,) = document["tenants"][0]["services"]
    service |= {"timeout_s": 5, "targets": [B, A], "weights": {A: 2}}
    applied(admin, document)
    assert bound(admin) == {B: False, A: True}
    service["targets"] = [B]
    del service["weights"]
    applied(admin, document)
    service["targets"] = [A, B]
    applied(admin, document)
    assert bound(admin) == {A: False, B: False}


def test_a_rollback_answers_for_nothing(admin: Admin, operator: Holder) -> None:
    operator.post("/v1/services", slug="orders", targets=[A])
    admin.patch("/v1/services/orders?tenant=acme", timeout_s=5)
    found = admin.get("/v1/config")
    found["tenants"][0]["services"][0] |= {"targets": [A, B]}
    number = applied(admin, found)["revision"]["number"]
    before = number - 1  # as it was found
    admin.patch("/v1/services/orders?tenant=acme", targets=[C])
    assert bound(admin) == {C: False}
    admin.post("/v1/config/rollback", number=number)
    assert bound(admin) == {A: True, B: False}
    admin("DELETE", "/v1/services/orders?tenant=acme")
    admin.post("/v1/config/rollback", number=before)
    assert bound(admin) == {A: True}
    admin.patch("/v1/services/orders?tenant=acme", targets=[A])
    admin.post("/v1/config/rollback", number=number)
    assert bound(admin) == {A: False, B: False}  # what stays is as it is


# What control itself asks


def run(awaitable: Any) -> Any:
    return asyncio.run(_within(awaitable))


async def _within(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(20):
        return await awaitable


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1"])
def test_no_probe_goes_to_the_own_machine(names: Names, address: str) -> None:
    async def probed() -> None:
        names.lead_to = [address]
        async with Upstream() as upstream:
            url = f"http://api.example:{upstream.port}"
            said = await probe(url, HEALTH, TlsConf(), bound=True)
            assert said is not None
            assert said.startswith("no connection (its address is of the gateway's own machine or network link")
            if address == "127.0.0.1":
                assert await probe(url, HEALTH, TlsConf()) is None  # of one who may
                assert "own machine" in str(await probe(f"http://127.0.0.1:{upstream.port}", HEALTH, TlsConf(), True))
                assert len(upstream.peers) == 1

    run(probed())


def test_no_probe_goes_to_a_socket(tmp_path: Path) -> None:
    said = run(probe(f"unix:{tmp_path}/app.sock", HEALTH, TlsConf(), bound=True))
    assert "own machine" in said


def test_a_probe_of_another_machine_is_as_ever(names: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(asking, "is_of_this_machine", lambda address: address == "127.0.0.3")
    names.lead_to = ["127.0.0.3", "127.0.0.2", "127.0.0.1"]  # own, dead, and well

    async def probed() -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        async with TlsUpstream(ca) as upstream:
            tls = TlsConf(ca_file=f"{tmp_path}/ca.pem")
            assert await probe(f"https://orders.example:{upstream.port}/v1", HEALTH, tls, bound=True) is None
            assert "no connection" in str(await probe(f"https://b.example:{upstream.port}", HEALTH, tls, bound=True))
            (request,) = upstream.requests
            assert request.line == b"GET /v1/health HTTP/1.1"
            assert request.one(b"host") == b"orders.example:%d" % upstream.port
        names.lead_to = []
        said = await probe("http://api.example", HEALTH, TlsConf(), bound=True)
        assert said == "no connection ([Errno -2] Name or service not known)"

    run(probed())


def test_a_name_of_a_thousand_addresses_does_not_hold_the_loop(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []

    def judge(address: str) -> bool:
        judged.append(address)
        return True

    monkeypatch.setattr(asking, "is_of_this_machine", judge)
    names.lead_to = [f"192.0.2.{low}" for low in range(256)]
    assert "own machine" in str(run(probe("http://api.example", HEALTH, TlsConf(), bound=True)))
    assert judged == names.lead_to[:MOST_JUDGED]


def test_no_webhook_goes_to_the_own_machine(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as hooks:
        url = hooks.url.replace("127.0.0.1", "hooks.example")

        def posted(bound: bool) -> Any:
            return run(post_over_http(url, "whsec_" + "A" * 32, "evt_1", b"{}", 1, bound))

        refused = posted(True)
        assert (refused.status, refused.delivered, hooks.got) == (None, False, [])
        assert refused.failure.startswith("no connection (its address is of the gateway's own machine")
        assert posted(False).delivered
        monkeypatch.setattr(asking, "is_of_this_machine", lambda address: False)
        assert posted(True).delivered
        first, second = hooks.got
        assert second == first
        assert second.headers["host"] == f"hooks.example:{hooks.server_port}"


def test_an_alert_keeps_who_has_named_its_receiver(admin: Admin, operator: Holder, names: Names) -> None:
    with receiver() as hooks:
        url = hooks.url.replace("127.0.0.1", "hooks.example")
        theirs, ours = (
            who.post(path, url=url, quota=80)["id"]
            for who, path in ((operator, "/v1/alerts"), (admin, "/v1/alerts?tenant=acme"))
        )
        for who in (operator, admin):  # whoever asks, it is about who has named it
            said = who.post(f"/v1/alerts/{theirs}/test?tenant=acme")
            assert (said["delivered"], said["status"]) == (False, None)
            assert "own machine" in said["error"]
        assert hooks.got == []
        assert operator.post(f"/v1/alerts/{ours}/test")["delivered"]
    assert operator.get(f"/v1/alerts/{theirs}")["state"] == "failing"
    with admin.control.database.read() as session:
        assert session.exec(select(Alert.bound).order_by(col(Alert.id))).all() == [True, False]
