"""What every address of the admin API has in common: problems, bodies, pages, the audit, who is admitted."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from gatewayd import __version__
from gatewayd.control.admin.app import build_app
from gatewayd.control.admin.inputs import MAX_BODY_BYTES
from gatewayd.control.admin.operations import OPERATIONS
from gatewayd.control.admin.peer import Peer, PeerProtocol, role_of
from gatewayd.control.admin.state import JournalView
from gatewayd.control.database import HEAD
from tests.control.conftest import Admin

# Problems


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is empty"),
        (b"{", "not JSON"),
        (b"slug=a", "not JSON"),
        (b'{"slug":"a"} x', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"slug":"\xff"}', "not JSON"),
        (b'{"slug":"\\ud800"}', "not JSON"),
        (b"[]", "must be an object, not a list"),
        (b"null", "must be an object, not null"),
        (b"[" * 100_000, "must be an object, not a list"),
    ],
)
def test_a_body_that_is_no_json_object_is_malformed(admin: Admin, body: bytes, says: str) -> None:
    assert says in admin.refused("malformed", "POST", "/v1/tenants", content=body)["detail"]


def test_a_body_is_bounded(admin: Admin) -> None:
    problem = admin.refused("body_too_large", "POST", "/v1/tenants", content=b" " * (MAX_BODY_BYTES + 1))
    assert problem["status"] == 413


def test_problems_say_what_they_are(admin: Admin) -> None:
    assert admin.refused("not_found", "GET", "/v1/services/x") == {
        "type": "urn:gatewayd:problem:not_found",
        "title": "Not found",
        "status": 404,
        "detail": "there is no service 'x'",
        "code": "not_found",
    }


@pytest.mark.parametrize("path", ["/", "/v2", "/v1/services/", "/v1/services/a/b", "/v1/keys/a/rename"])
def test_addresses_that_are_none(admin: Admin, path: str) -> None:
    assert "not an address of the admin API" in admin.refused("not_found", "GET", path)["detail"]


def test_methods_that_an_address_does_not_answer(admin: Admin) -> None:
    admin.refused("method_not_allowed", "PUT", "/v1/status")
    assert "GET" in admin("PUT", "/v1/status").headers["allow"]


def test_a_ref_of_odd_characters_is_only_not_found(admin: Admin) -> None:
    for ref in ("%00", "%F0%9F%A6%8A", "%27%3B--", "..%2F", "%25", "a" * 5000):
        for noun in ("tenants", "services", "plans", "keys"):
            response = admin("GET", f"/v1/{noun}/{ref}")
            assert response.status_code == 404
            assert len(response.content) < 500


def test_a_fault_of_ours_is_logged_and_not_shown(
    admin: Admin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(admin.plane, "workers", fail)
    problem = admin.refused("internal", "GET", "/v1/status")
    assert "secret" not in str(problem)
    assert "the secret reason" in caplog.text


def test_a_locked_database_is_unavailable_and_nothing_is_published(admin: Admin) -> None:
    other = sqlite3.connect(admin.control.database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    problem = admin.refused("unavailable", "POST", "/v1/tenants", {"slug": "acme"})
    assert "database is locked" in problem["detail"]
    other.execute("ROLLBACK")
    other.close()
    assert admin.plane.told == []
    admin.post("/v1/tenants", slug="acme")


# Queries and pages


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("tenent=acme", "tenent"),
        ("limit=1&limit=2", "limit"),
    ],
)
@pytest.mark.parametrize("noun", ["services", "plans", "keys"])
def test_bad_queries_are_refused(admin: Admin, noun: str, query: str, field: str) -> None:
    assert admin.refused("invalid", "GET", f"/v1/{noun}?{query}")["field"] == field


@pytest.mark.parametrize("noun", ["keys", "audit"])
@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 19, "9" * 30, "²"])
def test_a_cursor_that_no_list_gave_is_refused(admin: Admin, noun: str, cursor: str) -> None:
    assert admin.refused("invalid", "GET", f"/v1/{noun}?after={cursor}")["field"] == "after"


def test_a_misspelt_tenant_does_not_act_on_the_default_one(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=["http://a"])
    admin.refused("invalid", "DELETE", "/v1/services/orders?tenent=acme")
    assert len(admin.get("/v1/services")["items"]) == 1


# The audit


def test_every_change_is_audited_with_before_and_after(admin: Admin) -> None:
    added = admin.post("/v1/services", slug="orders", targets=["http://a"])
    changed = admin.patch("/v1/services/orders", auth="none")
    admin.delete("/v1/services/orders")
    removed, set_, add = admin.get("/v1/audit")["items"]
    assert (add["action"], add["before"], add["after"]) == ("service.add", None, added)
    assert (set_["action"], set_["before"], set_["after"]) == ("service.set", added, changed)
    assert (removed["action"], removed["before"], removed["after"]) == ("service.remove", changed, None)
    assert {(line["actor"], line["tenant"], line["subject"]) for line in (add, set_, removed)} == {
        ("root", "default", added["id"])
    }


def test_what_was_refused_is_not_audited(admin: Admin) -> None:
    admin.refused("invalid", "POST", "/v1/tenants", {"slug": "Acme"})
    admin.refused("conflict", "POST", "/v1/tenants", {"slug": "default"})
    admin.refused("not_found", "DELETE", "/v1/services/x")
    assert admin.get("/v1/audit")["items"] == []


def test_the_audit_is_listed_newest_first_by_page_and_tenant(admin: Admin) -> None:
    for slug in ("a", "b", "c"):
        admin.post("/v1/tenants", slug=slug)
    first = admin.get("/v1/audit", limit=2)
    second = admin.get("/v1/audit", limit=2, after=first["next"])
    assert [line["tenant"] for line in first["items"] + second["items"]] == ["c", "b", "a"]
    assert second["next"] is None
    assert [line["action"] for line in admin.get("/v1/audit", tenant="b")["items"]] == ["tenant.add"]


# Status


def test_status_tells_what_an_operator_asks_first(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=["http://a"])
    admin.post("/v1/keys")
    status = admin.get("/v1/status")
    assert status == {
        "version": __version__,
        "state": "ok",
        "started_at": "2026-09-01T12:00:00Z",
        "listen": "127.0.0.1:8080",
        "url": "http://127.0.0.1:8080",
        "state_dir": str(admin.control.settings.state_dir),
        "workers": [
            {"slot": 0, "pid": 4242, "state": "serving", "requests": 7, "in_flight": 1, "connections": 2,
             "cached_keys": 3, "journal_full": False, "journal_lost": 0, "journal_error": ""}
        ],
        "journal": {"segments": 1, "torn": 0, "full": False, "damaged": [], "failure": "", "error": "", "lost": 0,
                    "waiting_records": 0, "waiting_bytes": 0, "waiting_s": 0},
        "database": {"schema": HEAD, "bytes": status["database"]["bytes"]},
        "tenants": 1,
        "services": 1,
        "keys": 1,
        "problems": [],
        "troubles": [],
        "certificates": [],
        "disk": status["disk"],
        "now": {"window_s": 1, "requests_s": 0.0, "errors_ratio": 0.0, "refused_ratio": 0.0, "p50_ms": None,
                "p99_ms": None, "in_flight": 1},
    }  # fmt: skip
    assert admin.get("/healthz") == {"status": "ok"}
    assert admin.get("/readyz") == {"status": "ready"}


def test_status_is_degraded_by_what_is_wrong(admin: Admin) -> None:
    admin.plane.state = "gone"
    admin.plane.journal_view = JournalView(
        segments=3,
        torn=2,
        full=True,
        damaged=("w0-1.damaged",),
        failure="it is full",
        lost=5,
        waiting_records=5,
        waiting_s=61,
    )
    status = admin.get("/v1/status")
    assert status["state"] == "degraded"
    assert status["problems"] == [
        "no worker is serving",
        "worker 0 is gone",
        "the journal cannot be written: the disk is full",
        "5 requests were served and not recorded, since the journal had no room",
        "usage is not being stored, journals are kept: it is full",
        "usage is 61 s behind: 5 records wait in the journals",
        "2 torn records were dropped from the journal",
        "journal files are damaged and were set aside, not billed: w0-1.damaged",
    ]
    assert admin.refused("unavailable", "GET", "/readyz")["detail"] == "no worker is serving"


# Who is asking


def test_root_and_the_daemons_user_are_admins_and_the_sockets_group_operators(tmp_path: Path) -> None:
    admin_socket = tmp_path / "admin.sock"
    admin_socket.touch()
    own, group = os.geteuid(), admin_socket.stat().st_gid
    assert role_of(Peer(1, 0, 12345), admin_socket) == "admin"
    assert role_of(Peer(1, own, 12345), admin_socket) == "admin"
    assert role_of(Peer(1, 54321, group), admin_socket) == "operator"
    assert role_of(Peer(1, 54321, group + 1), admin_socket) is None
    assert role_of(Peer(1, 54321, group), tmp_path / "gone.sock") is None


def test_a_member_by_supplementary_group_is_an_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    admin_socket = tmp_path / "admin.sock"
    admin_socket.touch()
    group = admin_socket.stat().st_gid
    user = pwd.struct_passwd(("ops", "x", 54321, 54321, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, group])
    assert grp.getgrgid(group)
    assert role_of(Peer(1, 54321, 54321), admin_socket) == "operator"


def test_a_worker_is_not_admitted_though_it_is_the_daemons_own(tmp_path: Path) -> None:
    """It connects to whatever a target names, and a link may lead here: its callers would be admins."""
    with subprocess.Popen(["sleep", "60"]) as sibling:  # a child of ours, as seen by another child of ours
        code = (
            "import sys; from pathlib import Path; from gatewayd.control.admin.peer import Peer, role_of\n"
            "print([role_of(Peer(int(pid), 0, 0), Path('none')) for pid in sys.argv[1:]])"
        )
        own = str(os.getpid())
        control = subprocess.run(
            [sys.executable, "-c", code, str(sibling.pid), own], capture_output=True, text=True, check=True
        )
        sibling.terminate()
    assert control.stdout.strip() == "[None, 'admin']"


def test_others_are_refused_whatever_they_ask(admin: Admin) -> None:
    admin.app.peer = Peer(1, 54321, 54321)
    for path in ("/v1/status", "/v1/keys", "/v1/whoami", "/nowhere"):
        problem = admin.refused("not_permitted", "GET", path)
        assert "neither root nor the user of gatewayd" in problem["detail"]
    assert admin.get("/healthz") == {"status": "ok"}


@asynccontextmanager
async def on_a_socket(admin: Admin, path: Path) -> AsyncIterator[httpx.AsyncClient]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    config = uvicorn.Config(build_app(admin.control), http=PeerProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://admin") as client:
        while not server.started:
            await asyncio.sleep(0.01)
        yield client
    server.should_exit = True
    await serving


def test_over_a_real_socket_the_audit_names_the_user(admin: Admin, tmp_path: Path) -> None:
    async def drive() -> Any:
        async with on_a_socket(admin, tmp_path / "admin.sock") as client:
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            made = await client.post("/v1/tenants", json={"slug": "acme"})
            assert made.status_code == 201
            refused = await client.post("/v1/tenants", content=b"{")
            assert refused.json()["code"] == "malformed"
            return (await client.get("/v1/audit")).json()

    (line,) = asyncio.run(drive())["items"]
    assert line["actor"] == pwd.getpwuid(os.geteuid()).pw_name


def test_changes_at_once_are_made_one_after_the_other(admin: Admin, tmp_path: Path) -> None:
    async def drive() -> list[int]:
        async with on_a_socket(admin, tmp_path / "admin.sock") as client:
            posts = (client.post("/v1/tenants", json={"slug": "acme"}) for _ in range(20))
            gets = (client.get("/v1/tenants") for _ in range(20))
            posted = await asyncio.gather(*posts)
            assert {response.status_code for response in await asyncio.gather(*gets)} == {200}
            return sorted(response.status_code for response in posted)

    assert asyncio.run(drive()) == [201] + [409] * 19


def test_every_address_begins_with_its_noun() -> None:
    """By which admission looks it up."""
    assert not [each.path for each in OPERATIONS if "{" in "/".join(each.path.split("/")[:3])]


def test_every_address_has_one_line_in_the_list() -> None:
    seen = [(each.path, each.method) for each in OPERATIONS]
    assert len(seen) == len(set(seen))
