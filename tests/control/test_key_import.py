"""Keys from a CSV file: all of them or none, and each complaint with its line."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from typing import Any

import httpx
import pytest

from gatewayd import keys
from gatewayd.control.compile import find_key, snapshot
from gatewayd.control.importing import LONGEST_LINE_BYTES, KeyImport
from gatewayd.control.tables import Tenant
from gatewayd.errors import GatewayError
from tests.control.conftest import Admin
from tests.control.test_keys import TARGETS

SECRETS = [f"sk_live_{number:016x}_theirs" for number in range(5)]
PATH = "/v1/keys/import"


def imported(admin: Admin, *lines: str, **query: Any) -> Any:
    response = admin("POST", PATH, content="\n".join(lines).encode(), params=query)
    assert response.status_code == 200, response.text
    return response.json()


def refused(admin: Admin, *lines: str, code: str = "invalid") -> str:
    detail = admin.refused(code, "POST", PATH, content="\n".join(lines).encode())["detail"]
    assert admin.get("/v1/keys")["items"] == []
    assert not any(secret in detail for secret in SECRETS)
    return str(detail)


def conf_of(admin: Admin, secret: str) -> Any:
    return find_key(admin.control.database.lookup, keys.name_of_digest(keys.digest(secret.encode())))


def test_secrets_of_their_own_making_become_keys(admin: Admin) -> None:
    assert not snapshot(admin.control.database.lookup).tenants[0].imported_keys
    answer = imported(admin, "secret", *SECRETS)
    assert answer == {"tenant": "default", "rows": 5, "imported": 5, "dry_run": False}
    assert admin.plane.told == ["snapshot"]
    assert snapshot(admin.control.database.lookup).tenants[0].imported_keys
    listed = admin.get("/v1/keys")["items"]
    assert len({item["id"] for item in listed}) == 5
    assert {item["imported"] for item in listed} == {True}
    conf = conf_of(admin, SECRETS[3])
    assert conf.digest == hashlib.sha256(SECRETS[3].encode()).digest()
    assert f"key_{conf.public_id}" == listed[3]["id"]
    (line,) = admin.get("/v1/audit")["items"]
    assert (line["action"], line["actor"], line["after"]) == ("key.import", "root", {"imported": 5})
    assert SECRETS[0] not in str(line)


def test_columns_in_any_order_say_what_keys_are(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    admin.post("/v1/services", slug="products", targets=TARGETS)
    admin.post("/v1/plans", name="starter", rates=["60/min"])
    imported(
        admin,
        "\ufeffplan,label:team,expires,name,secret,services,id,sha256\r",
        f'starter,a,2090-01-01,"Smith, Co",{SECRETS[0]},orders products,,\r',
        "\r",
        f",,,,,,gw_bbbbbbbb,{hashlib.sha256(SECRETS[1].encode()).hexdigest().upper()}\r",
    )
    first, second = admin.get("/v1/keys")["items"]
    assert (first["plan"], first["services"], first["name"]) == ("starter", ["orders", "products"], "Smith, Co")
    assert (first["labels"], first["expires_at"]) == ({"team": "a"}, "2090-01-01T00:00:00Z")
    assert (second["id"], second["plan"], second["labels"]) == ("key_bbbbbbbb", None, {})
    assert conf_of(admin, SECRETS[1]).public_id == "bbbbbbbb"


def test_a_key_of_another_gateway_comes_as_digest_and_id(admin: Admin) -> None:
    public_id, key = keys.new_key()
    imported(admin, "id,sha256", f"{public_id},{hashlib.sha256(key.encode()).hexdigest()}")
    conf = find_key(admin.control.database.lookup, public_id)
    assert conf is not None and conf.digest == keys.digest(key.encode())
    assert admin.post("/v1/keys/verify", key=key)["valid"]


def test_a_plan_that_is_not_named_is_the_tenants_default(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter")
    with admin.control.database.write() as session:
        tenant = session.get(Tenant, 1)
        assert tenant is not None
        tenant.default_plan_id = 1
    imported(admin, "secret", SECRETS[0])
    assert admin.get("/v1/keys")["items"][0]["plan"] == "starter"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "line 1: names neither"),
        (["name", "x"], "line 1: names neither"),
        ([SECRETS[0], SECRETS[1]], "line 1: column 1 has no name"),
        (["secret,plan", f"{SECRETS[0]},{SECRETS[1]}"], "line 2: names a plan"),
        (["secret,colour", f"{SECRETS[0]},red"], "line 1: column 2 has no name that is known"),
        (["secret,secret", f"{SECRETS[0]},x"], "line 1: the column secret stands there twice"),
        (["secret", SECRETS[0], "short"], "line 3: has a secret that is not of 20"),
        (["secret", "gw_ab12cd34_abcdefghijklmnop"], "line 2: has a secret that begins with gw_"),
        (["secret", "abababababababababababab"], "line 2: has a secret of fewer than 8"),
        (["secret", f"{SECRETS[0]} "], "line 2: has a secret that is not"),
        (["secret", f"{SECRETS[0]},x"], "line 2: has 2 cells"),
        (["secret,sha256", f"{SECRETS[0]},{'0' * 64}"], "line 2: has a secret and a sha256"),
        (["secret,sha256", ","], "line 2: has neither"),
        (["sha256", "0" * 63], "line 2: has a sha256 that is not"),
        (["secret,id", f"{SECRETS[0]},AB"], "line 2: has an id that is not"),
        (["secret,plan", f"{SECRETS[0]},nothing"], "line 2: names a plan that does not exist"),
        (["secret,services", f"{SECRETS[0]},nowhere"], "line 2: names a service that does not exist"),
        (["secret,expires", f"{SECRETS[0]},2001-01-01"], "line 2: has an expiry that is no time to come"),
        (["secret,name", f"{SECRETS[0]},a\tb"], "line 2: holds a control character"),
        (["secret,label:a b", f"{SECRETS[0]},x"], "line 2: has a label whose name"),
        (["secret", SECRETS[0], SECRETS[1], SECRETS[0]], "line 4: has the same key as line 2"),
        (["secret,id", f"{SECRETS[0]},bbbbbbbb", f"{SECRETS[1]},gw_bbbbbbbb"], "line 3: has the same id as line 2"),
        (["secret", f'"{SECRETS[0]}'], "line 2: "),
        (["secret", "\u00fc" * 30], "line 2: has a secret that is not"),
        (["secret", "x" * (LONGEST_LINE_BYTES + 1)], "longer than"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_imported(admin: Admin, lines: list[str], says: str) -> None:
    detail = refused(admin, *lines)
    assert says in detail
    assert detail.endswith("nothing was imported")
    assert admin.plane.told == []
    assert [line["action"] for line in admin.get("/v1/audit")["items"]] == []
    assert imported(admin, "secret", *SECRETS)["imported"] == 5  # and the next one is none the worse


def test_what_is_not_utf_8_is_refused(admin: Admin) -> None:
    content = f"secret,name\n{SECRETS[0]},Jos".encode() + b"\xe9\n"
    assert "UTF-8" in admin.refused("invalid", "POST", PATH, content=content)["detail"]


def test_keys_that_exist_are_not_imported_again(admin: Admin) -> None:
    imported(admin, "secret,name", f"{SECRETS[0]},one", f"{SECRETS[1]},two")
    for lines, says in (
        (["secret", SECRETS[2], SECRETS[0]], "line 3: is that of key gw_"),
        (["secret,id", f"{SECRETS[3]},{admin.get('/v1/keys/one')['id']}"], "line 2: has the id"),
    ):
        detail = admin.refused("invalid", "POST", PATH, content="\n".join(lines).encode())["detail"]
        assert says in detail
    admin.post("/v1/keys/one/rotate")
    assert (
        "was that of key" in admin.refused("invalid", "POST", PATH, content=f"secret\n{SECRETS[0]}".encode())["detail"]
    )
    assert len(admin.get("/v1/keys")["items"]) == 2


def test_an_id_that_is_somebodys_is_drawn_again(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight characters a few are drawn twice, where there are millions of keys."""
    theirs = admin.post("/v1/keys")["id"].removeprefix("key_")
    monkeypatch.setattr(keys, "drawn_public_ids", lambda: iter([theirs, "bbbbbbbb", "bbbbbbbb", "cccccccc"]))
    imported(admin, "id,secret", f",{SECRETS[0]}", f",{SECRETS[1]}", f",{SECRETS[2]}", f"cccccccc,{SECRETS[3]}")
    ids = [item["id"].removeprefix("key_") for item in admin.get("/v1/keys")["items"]]
    assert len(set(ids)) == 5
    assert ids[0] == theirs and ids[4] == "cccccccc"


@pytest.mark.parametrize("table", ["plan", "tenant"])
def test_what_is_removed_while_the_file_comes_in(admin: Admin, monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    admin.post("/v1/tenants", slug="acme")
    assert admin("POST", "/v1/plans", {"name": "starter"}, params={"tenant": "acme"}).status_code == 201

    def removed_first(self: KeyImport, note: Any) -> None:
        with sqlite3.connect(admin.control.database.path) as database:
            database.execute(f"UPDATE {table} SET removed_at = 1 WHERE id = (SELECT max(id) FROM {table})")
        database.close()
        store(self, note)

    store = KeyImport.store
    monkeypatch.setattr(KeyImport, "store", removed_first)
    lines = ["secret,plan", f"{SECRETS[0]},", f"{SECRETS[1]},starter"]
    answer = admin.refused("invalid", "POST", PATH, content="\n".join(lines).encode(), params={"tenant": "acme"})
    assert "removed meanwhile" in answer["detail"]
    assert ("line 3" in answer["detail"]) is (table == "plan")
    assert conf_of(admin, SECRETS[0]) is None


def test_a_dry_run_checks_and_leaves_no_trace(admin: Admin) -> None:
    answer = imported(admin, "secret", *SECRETS, dry_run="true")
    assert answer == {"tenant": "default", "rows": 5, "imported": 0, "dry_run": True}
    assert admin.get("/v1/keys")["items"] == admin.get("/v1/audit")["items"] == admin.plane.told == []
    assert "same key" in refused(admin, "secret", SECRETS[0], SECRETS[0])


def test_a_file_that_breaks_off_imports_nothing(admin: Admin) -> None:
    async def disconnected() -> list[str]:
        sent: list[str] = []
        messages = [
            {"type": "http.request", "body": f"secret\n{SECRETS[0]}\n".encode(), "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "headers": [], "state": {}}
        await admin.app(scope, receive, send)
        return sent

    asyncio.run(disconnected())
    assert admin.get("/v1/keys")["items"] == []
    assert admin.get(PATH) == {"state": "idle", "rows": 0, "stored": 0}


def test_another_import_at_the_same_time_is_refused(admin: Admin) -> None:
    admin.control.imports.running = object()  # type: ignore[assignment]
    refused(admin, "secret", SECRETS[0], code="conflict")


def test_while_keys_are_stored_a_change_waits_and_nothing_stands_still(admin: Admin) -> None:
    database = admin.control.database

    async def at_once() -> None:

        transport = httpx.ASGITransport(admin.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            with database.lent():
                with pytest.raises(GatewayError), database.write():
                    pass
                change = asyncio.create_task(client.post("/v1/keys", json={}))
                assert (await client.get("/v1/keys")).status_code == 200
                await asyncio.sleep(0.1)
                assert not change.done()
            assert (await change).status_code == 201

    asyncio.run(at_once())
