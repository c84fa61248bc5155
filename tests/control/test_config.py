"""The configuration as a document: what it shows, what it would change, and what of it comes to be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatewayd.control.admin import config
from gatewayd.control.admin.state import Applying, ControlState
from gatewayd.control.compile import find_key, snapshot
from gatewayd.control.database import Database
from gatewayd.policy.audit_chain import GENESIS, Line, link
from gatewayd.settings import Settings
from tests.control.conftest import Admin, FakePlane
from tests.control.test_keys import TARGETS


def document(*tenants: Any) -> dict[str, Any]:
    return {"version": 1, "tenants": list(tenants)}


def default(**sections: Any) -> dict[str, Any]:
    return document({"slug": "default", **sections})


def applied(admin: Admin, wanted: Any, **query: Any) -> Any:
    response = admin("POST", "/v1/config/apply", wanted, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def differences(admin: Admin, wanted: Any, **query: Any) -> list[Any]:
    response = admin("POST", "/v1/config/diff", wanted, params=query)
    assert response.status_code == 200, response.text
    return list(response.json()["differences"])


def short(found: list[Any]) -> list[str]:
    return [f"{each['change']} {each['kind']} {each['tenant']}/{each['name']}" for each in found]


def mistakes(admin: Admin, wanted: Any, **query: Any) -> dict[str, str]:
    problem = admin.refused("invalid", "POST", "/v1/config/diff", wanted, params=query)
    assert len(problem["errors"]) == len({each["pointer"] for each in problem["errors"]}), problem["errors"]
    return {each["pointer"]: each["detail"] for each in problem["errors"]}


def dump(admin: Admin, **query: Any) -> Any:
    return admin.get("/v1/config", **query)


@pytest.fixture
def another(tmp_path: Path, new_database: Path) -> Iterator[Admin]:
    """An empty gateway beside the one that tests have."""
    folder = tmp_path / "another"
    folder.mkdir()
    shutil.copy(new_database, folder)
    database = Database.open(folder)
    settings = Settings(state_dir=folder, admin_socket=tmp_path / "another.sock", workers=1)
    client = Admin(ControlState(database, settings, FakePlane(), "127.0.0.1:8080", 1_788_264_000), FakePlane())
    yield client
    client.close()
    database.close()


def furnish(admin: Admin) -> None:
    """Something of everything, made by single commands."""
    admin.post("/v1/tenants", slug="acme", name="Acme", currency="EUR", time_zone="Europe/Berlin", rates=["100/s"])
    for tenant in ("default", "acme"):
        for path, body in (
            ("services", {"slug": "orders", "targets": ["http://a.example", "http://b.example"],
                          "weights": {"http://b.example": 3}, "paths": [f"/{tenant}-orders"], "timeout_s": None,
                          "health": {"path": "/healthz"}, "breaker": {"ratio": 0.25}, "hash_on": "header:X-User",
                          "request_headers": [{"action": "set", "name": "X-A", "value": "b"},
                                              {"action": "remove", "name": "X-C"}]}),
            ("services", {"slug": "products", "targets": TARGETS, "auth": "none", "body_limit_bytes": 1000}),
            ("plans", {"name": "starter", "rates": ["60/min", "10/s"], "quota": "10k", "alerts": [80, 100]}),
            ("plans", {"name": "tiered", "tiers": [{"up_to": 1000, "price": "0.01"}, {"up_to": None, "price": "0"}],
                       "included": 100, "base_fee": "5", "tier_mode": "volume", "billable": ["2xx", "4xx"]}),
            ("plans", {"name": "free", "price": "0"}),
            ("plans", {"name": "units", "counts": "units", "package": {"size": 100, "price": "1"}, "price": "0.001"}),
            ("routes", {"service": "orders", "name": "reads", "path": "/v1/{tenant}/" + tenant, "methods": ["GET"],
                        "rates": ["5/s"], "weight": 3, "networks": ["10.0.0.0/8"]}),
            ("routes", {"service": None, "host": f"{tenant}.example.com", "prefix": "/x"}),
            ("keys", {"name": "ci", "services": ["orders"], "plan": "starter", "expires": "2030-01-01",
                      "labels": {"team": "a", "env": "b"}, "rates": ["1/s"], "burst": 5, "price": "0.5"}),
            ("keys", {"name": "twin", "quota": 5, "allow": ["GET /v1/*"]}),
            ("keys", {"name": "twin", "in_flight_limit": 2, "networks": ["10.0.0.0/8"]}),
            ("keys", {}),
            ("keys", {"name": "old"}),
        ):  # fmt: skip
            response = admin("POST", f"/v1/{path}", body, params={"tenant": tenant})
            assert response.status_code == 201, response.text
        admin("POST", "/v1/keys/old/revoke", params={"tenant": tenant})
        admin("PATCH", "/v1/plans/starter", {"rates": ["60/min", "10/s"], "burst": 20}, params={"tenant": tenant})
    admin.patch("/v1/tenants/acme", default_plan="starter")


def test_a_document_shows_what_is_not_as_it_always_is(admin: Admin) -> None:
    assert dump(admin) == default(services=[], plans=[], routes=[], keys=[])
    admin.post("/v1/services", slug="products", targets=TARGETS)
    admin.post("/v1/services", slug="orders", targets=TARGETS, timeout_s=5)
    admin.post("/v1/plans", name="starter", rates=["60/min"], burst=10)
    admin("POST", "/v1/routes", {"service": "orders", "path": "/v1", "name": "reads"})
    admin.post("/v1/keys", name="ci", services=["orders"], plan="starter")
    assert dump(admin) == default(
        services=[{"slug": "orders", "targets": TARGETS, "timeout_s": 5.0}, {"slug": "products", "targets": TARGETS}],
        plans=[{"name": "starter", "rates": ["60/min burst 10"]}],
        routes=[{"name": "reads", "service": "orders", "path": "/v1"}],
        keys=[{"name": "ci", "services": ["orders"], "plan": "starter"}],
    )


def test_no_secret_and_no_digest_is_in_it(admin: Admin) -> None:
    secret = admin.post("/v1/keys", name="ci")["key"]
    text = admin("GET", "/v1/config").text
    assert secret not in text and secret.split("_")[2] not in text
    applied(admin, default(keys=[{"name": "ci"}, {"name": "other"}]))
    assert "digest" not in text + admin("GET", "/v1/config/revisions/1").text + admin("GET", "/v1/audit").text


def test_a_dump_applied_to_an_empty_gateway_gives_the_same_dump(admin: Admin, another: Admin) -> None:
    furnish(admin)
    before = admin("GET", "/v1/config").content
    answer = applied(another, json.loads(before), prune=True)
    assert (answer["added"], answer["changed"], answer["removed"]) == (25, 0, 0)
    assert another("GET", "/v1/config").content == before
    # What is served is the same too, but for numbers and ids.
    ours, theirs = (snapshot(each.control.database.lookup) for each in (admin, another))
    assert [each.slug for each in ours.tenants] == [each.slug for each in theirs.tenants]
    assert [(s.slug, s.targets, s.health, s.header_rules) for s in sorted(ours.services, key=str)] == [
        (s.slug, s.targets, s.health, s.header_rules) for s in sorted(theirs.services, key=str)
    ]


def test_a_dump_differs_in_nothing_from_what_it_was_made_of(admin: Admin) -> None:
    furnish(admin)
    whole = dump(admin)
    assert differences(admin, whole, prune=True) == []
    answer = applied(admin, whole, prune=True)
    assert (answer["revision"], answer["differences"]) == (None, [])
    assert admin.get("/v1/config/revisions")["items"] == []
    one = dump(admin, tenant="acme")
    assert [tenant["slug"] for tenant in one["tenants"]] == ["acme"]
    assert differences(admin, one, prune=True, tenant="acme") == []


def test_only_what_is_named_changes(admin: Admin) -> None:
    furnish(admin)
    wanted = default(services=[{"slug": "new", "targets": TARGETS}, {"slug": "products", "targets": TARGETS}])
    found = differences(admin, wanted)
    assert short(found) == ["add service default/new", "set service default/products"]
    assert found[1]["fields"] == [
        {"field": "auth", "before": "none", "after": "key"},
        {"field": "body_limit_bytes", "before": 1000, "after": None},
    ]
    assert dump(admin)["tenants"][1]["services"][1]["auth"] == "none"  # nothing is done by comparing
    applied(admin, wanted)
    assert [each["slug"] for each in dump(admin, tenant="default")["tenants"][0]["services"]] == [
        "new", "orders", "products",
    ]  # fmt: skip
    assert differences(admin, wanted) == []


def test_prune_takes_away_what_its_sections_do_not_name(admin: Admin) -> None:
    furnish(admin)
    before = dump(admin)
    wanted = document(
        {"slug": "default", "routes": [], "services": [{"slug": "products", "targets": TARGETS}], "keys": []},
        before["tenants"][0],
    )
    found = differences(admin, wanted, prune=True)
    assert {line.split()[0] + " " + line.split()[1] for line in short(found)} == {
        "remove key", "remove route", "remove service", "set service",
    }  # fmt: skip
    key = admin.get("/v1/keys/ci")["id"].removeprefix("key_")
    admin.plane.told.clear()
    applied(admin, wanted, prune=True)
    after = dump(admin, tenant="default")["tenants"][0]
    assert (after["keys"], after["routes"], [each["slug"] for each in after["services"]]) == ([], [], ["products"])
    assert len(after["plans"]) == 4  # of which nothing was said
    conf = find_key(admin.control.database.lookup, key)
    assert conf is not None and conf.revoked
    assert key in admin.plane.told[0] and admin.plane.told[1] == "snapshot"  # keys first


def test_two_services_exchange_their_paths(admin: Admin) -> None:
    admin.post("/v1/services", slug="one", targets=TARGETS, paths=["/a"])
    admin.post("/v1/services", slug="two", targets=TARGETS, paths=["/b"])
    wanted = default(
        services=[
            {"slug": "one", "targets": TARGETS, "paths": ["/b"]},
            {"slug": "two", "targets": TARGETS, "paths": ["/a"]},
        ]
    )
    assert applied(admin, wanted)["changed"] == 2
    wanted["tenants"][0]["services"][1]["paths"] = ["/b"]
    assert "already that of service one" in mistakes(admin, wanted)["/tenants/0/services/1/paths"]


def test_a_service_takes_the_slug_of_one_that_goes_and_a_tenant_too(admin: Admin) -> None:
    admin.post("/v1/services", slug="one", targets=TARGETS, paths=["/a"])
    wanted = document(
        {"slug": "default", "services": [{"slug": "two", "targets": TARGETS, "paths": ["/a"]}]}, {"slug": "one"}
    )
    assert "ambiguous" in mistakes(admin, wanted)["/tenants/1/slug"]
    answer = applied(admin, wanted, prune=True)
    assert short(answer["differences"]) == [
        "remove service default/one", "add tenant one/one", "add service default/two",
    ]  # fmt: skip


def test_a_route_is_known_by_its_name_and_else_by_what_it_matches(admin: Admin) -> None:
    admin.post("/v1/services", slug="api", targets=TARGETS)
    admin("POST", "/v1/routes", {"service": "api", "path": "/v1", "name": "reads"})
    admin("POST", "/v1/routes", {"service": "api", "path": "/v2"})
    ids = {item["path"]: item["id"] for item in admin.get("/v1/routes")["items"]}
    wanted = default(
        routes=[
            {"service": "api", "path": "/v3", "name": "reads"},
            {"service": "api", "path": "/v2", "name": "named", "weight": 5},
        ]
    )
    assert short(applied(admin, wanted)["differences"]) == ["set route default/named", "set route default/reads"]
    assert {item["path"]: item["id"] for item in admin.get("/v1/routes")["items"]} == {
        "/v3": ids["/v1"], "/v2": ids["/v2"],
    }  # fmt: skip
    wanted["tenants"][0]["routes"][0]["name"] = "renamed"
    found = applied(admin, wanted)["differences"]
    assert [each["fields"] for each in found] == [[{"field": "name", "before": "reads", "after": "renamed"}]]


def test_a_key_is_known_by_its_name_or_its_id(admin: Admin) -> None:
    ids = [admin.post("/v1/keys", name="twin")["id"].removeprefix("key_") for _ in range(2)]
    wanted = default(keys=[{"name": "twin"}])
    assert "more than one key" in mistakes(admin, wanted)["/tenants/0/keys/0/name"]
    wanted = default(keys=[{"id": ids[0], "name": "other"}, {"id": f"gw_{ids[1]}", "name": "twin", "quota": 7}])
    assert short(applied(admin, wanted)["differences"]) == ["set key default/other", "set key default/twin"]
    assert admin.get("/v1/keys/other")["id"] == f"key_{ids[0]}"
    assert applied(admin, wanted)["revision"] is None
    new = default(keys=[{"id": "bcdfghjk"}, {"name": "fresh"}])
    assert applied(admin, new)["added"] == 2
    assert admin.get("/v1/keys/bcdfghjk")["name"] == ""
    rotated = admin("POST", "/v1/keys/fresh/rotate", {}).json()
    assert admin.post("/v1/keys/verify", key=rotated["key"])["valid"]


def test_an_id_that_is_revoked_is_nobodys_again(admin: Admin) -> None:
    made = admin.post("/v1/keys", name="ci")["id"].removeprefix("key_")
    admin.post("/v1/keys/ci/revoke")
    assert "revoked, which is for ever" in mistakes(admin, default(keys=[{"id": made}]))["/tenants/0/keys/0/id"]
    admin.post("/v1/tenants", slug="acme")
    theirs = admin("POST", "/v1/keys", {}, params={"tenant": "acme"}).json()["id"].removeprefix("key_")
    assert "another tenant" in mistakes(admin, default(keys=[{"id": theirs}]))["/tenants/0/keys/0/id"]


def test_a_scope_of_services_that_are_gone_opens_nothing(admin: Admin, another: Admin) -> None:
    admin.post("/v1/services", slug="gone", targets=TARGETS)
    admin.post("/v1/keys", name="ci", services=["gone"])
    admin.delete("/v1/services/gone")
    whole = dump(admin)
    assert whole["tenants"][0]["keys"] == [{"name": "ci", "services": []}]
    applied(another, whole)
    assert dump(another) == whole
    conf = find_key(another.control.database.lookup, another.get("/v1/keys/ci")["id"].removeprefix("key_"))
    assert conf is not None and conf.services == frozenset({0})


def test_what_is_drained_or_disabled_stays_so(admin: Admin) -> None:
    """That is somebody's answer to a bad day, which no file knows of."""
    admin.post("/v1/services", slug="api", targets=["http://a.example", "http://b.example"])
    admin.post("/v1/keys", name="ci")
    admin.post("/v1/targets/drain", target="http://a.example")
    admin.post("/v1/keys/ci/disable")
    assert "disabled" not in str(dump(admin))
    applied(
        admin,
        default(
            services=[{"slug": "api", "targets": ["http://c.example", "http://a.example"]}],
            keys=[{"name": "ci", "quota": 3}],
        ),
    )
    assert admin.get("/v1/services/api")["drained"] == ["http://a.example"]
    assert admin.get("/v1/keys/ci")["status"] == "disabled"


def test_a_plan_that_changes_has_another_version(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter", rates=["60/min"])
    applied(admin, default(plans=[{"name": "starter", "rates": ["90/min"], "price": "0.5"}]))
    plan = admin.get("/v1/plans/starter")
    assert (plan["version"], plan["price"]) == (2, "0.5")
    (newest, oldest) = admin.get("/v1/plans/starter/versions")["items"]
    assert {**newest, "since": None} == {**plan, "since": None}
    assert oldest["version"] == 1
    assert admin.plane.told[-1] is None  # every key may have it
    applied(admin, default(plans=[{"name": "new"}]))
    assert [item["version"] for item in admin.get("/v1/plans/new/versions")["items"]] == [1]


def test_all_mistakes_are_found_each_with_its_place(admin: Admin) -> None:
    admin.post("/v1/services", slug="there", targets=TARGETS)
    wanted = document(
        {
            "slug": "default",
            "currency": "euro",
            "default_plan": "none",
            "colour": "red",
            "services": [
                {"slug": "Bad Slug", "targets": TARGETS, "timeout_s": "soon", "health": {"path": "x", "every": 5}},
                {"slug": "ok", "targets": ["ftp://x"], "key_header": "a b", "hash_on": "nothing"},
                {"targets": TARGETS},
                {"slug": "twice", "targets": TARGETS},
                {"slug": "twice", "targets": [1]},
                17,
            ],
            "plans": [{"name": "a/b", "rates": ["60/parsec"]}, {"name": "p", "burst": 3}],
            "routes": [{"service": "thre", "path": "/x"}, {"path": "v1"}, {"service": None, "auth": "none"}],
            "keys": [{"name": "ci", "plan": "a/b"}, {}, {"name": "x", "expires": "90d"}],
        },
        {"slug": "default"},
        "acme",
    )
    wanted["version"] = 2
    wanted["more"] = True
    found = mistakes(admin, wanted)
    assert set(found) == {
        "/version", "/more", "/tenants/0/currency", "/tenants/0/colour", "/tenants/2",
        "/tenants/0/services/0/timeout_s", "/tenants/0/services/0/slug", "/tenants/0/services/0/health/every",
        "/tenants/0/services/1/targets", "/tenants/0/services/1/key_header", "/tenants/0/services/1/hash_on",
        "/tenants/0/services/2", "/tenants/0/services/4/targets/0", "/tenants/0/services/5",
        "/tenants/0/plans/0/rates", "/tenants/0/plans/0/name", "/tenants/0/plans/1/burst",
        "/tenants/0/routes/1", "/tenants/0/routes/2/auth", "/tenants/0/keys/1/name", "/tenants/0/keys/2/expires",
    }  # fmt: skip
    assert found["/tenants/0/services/0/timeout_s"] == "timeout_s must be a number or null, not a string"
    assert admin.get("/v1/config/revisions")["items"] == []


def test_what_is_not_known_is_told_with_what_was_meant(admin: Admin) -> None:
    wanted = document(
        {
            "slug": "default",
            "service": [],
            "services": [
                {"slug": "a", "target": TARGETS, "timeout": 5, "retries": 3, "sticky": True},
                {"slug": "b", "url": TARGETS, "routes": [], "sticky": True},
                "orders",
                None,
            ],
            "plans": [{"name": "p", "rate": ["60/min"]}],
            "keys": [{"name": "ci", "secret": "sk_live_1"}],
        }
    )
    wanted |= {"apiVersion": "v1", "version": "1", "routes": []}
    found = mistakes(admin, wanted)
    assert found["/apiVersion"] == "'apiVersion' is not known here; did you mean version?"
    assert found["/version"] == 'version must be 1, not "1": this gateway reads no other'
    assert found["/routes"] == "routes are a tenant's: they stand in tenants, below '- slug: default'"
    assert found["/tenants/0/services/1/routes"] == found["/routes"]
    assert found["/tenants/0/service"] == "'service' is not known here; did you mean services?"
    assert found["/tenants/0/services/0/target"] == "'target' is not known here; did you mean targets?"
    assert found["/tenants/0/services/0/timeout"] == "'timeout' is not known here; did you mean timeout_s?"
    # What all is known is told once.
    assert found["/tenants/0/services/0/retries"].startswith("'retries' is not known here; known are slug, targets")
    assert found["/tenants/0/services/0/sticky"] == "'sticky' is not known here"
    assert found["/tenants/0/services/1/sticky"] == "'sticky' is not known here"
    assert found["/tenants/0/services/1/url"] == "'url' is not known here; did you mean targets?"
    assert found["/tenants/0/services/2"] == "a service must be an object, which begins with '- slug:', not a string"
    assert found["/tenants/0/services/3"] == "a service must be an object, which begins with '- slug:', not null"
    assert found["/tenants/0/plans/0/rate"] == "'rate' is not known here; did you mean rates?"
    assert found["/tenants/0/keys/0/secret"].startswith("no secret is in a document; `gatectl key rotate`")


def test_a_section_with_nothing_after_it_is_not_taken_for_an_empty_one(admin: Admin) -> None:
    """Pruned, it would remove all that is there. And what is wrong with it is not told twice."""
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    wanted = default(services=None, keys=[{"name": "ci", "services": ["orders"]}])
    assert mistakes(admin, wanted, prune=True) == {
        "/tenants/0/services":
            "nothing follows services: write [] for none, or leave it out, and what is there stays as it is",
    }  # fmt: skip
    wanted = default(services={"new": {"targets": TARGETS}}, keys=[{"name": "ci", "services": ["new"]}])
    assert mistakes(admin, wanted) == {
        "/tenants/0/services": "services must be a list, each beginning with '- slug:', not an object"
    }
    assert mistakes(admin, {"version": 1, "tenants": None}) == {
        "/tenants": "nothing follows tenants: write [] for none, or a tenant, which begins with '- slug:'"
    }


def test_a_tenant_with_a_mistake_is_not_one_that_is_missing(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    wanted = document({"slug": "default"}, {"slug": "acme", "currency": "euros"})
    assert list(mistakes(admin, wanted, prune=True)) == ["/tenants/1/currency"]


def test_what_an_object_names_must_be_there_in_the_end(admin: Admin) -> None:
    admin.post("/v1/services", slug="there", targets=TARGETS)
    admin.post("/v1/plans", name="starter")
    admin.post("/v1/keys", name="using", plan="starter")
    wanted = default(
        default_plan="statrer",
        services=[{"slug": "broken", "targets": ["ftp://x"]}],
        plans=[],
        routes=[{"service": "tehre", "path": "/x"}, {"service": "broken", "path": "/y"}],
        keys=[{"name": "ci", "services": ["there", "broken", "nowhere"], "plan": "starter"}],
    )
    found = mistakes(admin, wanted)
    assert found.pop("/tenants/0/services/0/targets")
    assert found == {
        "/tenants/0/default_plan": "there is no plan 'statrer'; did you mean starter?",
        "/tenants/0/routes/0/service": "there is no service 'tehre'; did you mean there?",
        "/tenants/0/keys/0/services/2": "there is no service 'nowhere'; did you mean there?",
    }
    del wanted["tenants"][0]["services"], wanted["tenants"][0]["routes"], wanted["tenants"][0]["default_plan"]
    wanted["tenants"][0]["keys"] = [{"name": "using", "plan": "starter"}]
    assert mistakes(admin, wanted, prune=True) == {
        "/tenants/0/keys/0/plan": "plan 'starter' is not in the document, and would go",
    }
    del wanted["tenants"][0]["keys"]
    assert mistakes(admin, wanted, prune=True) == {
        "/tenants/0/plans": "plan 'starter' would go, and key using needs it still",
    }


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"", "malformed", "not JSON"),
        (b"[]", "malformed", "not an object"),
        (b"version: 1", "malformed", "not JSON"),
        (b'{"version": 1, "tenants": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed", "objects in objects"),
        (b'{"version": 1, "tenants": [{"slug": "\xff"}]}', "malformed", "not JSON"),
        (b"{}", "invalid", "version is missing"),
        (b'{"version": 1, "tenants": 5}', "invalid", "tenants must be a list"),
        (b'{"version": 1, "tenants": [{"slug": "a", "keys": {}}]}', "invalid", "keys must be a list"),
        (b'{"version": 1, "tenants": [' + b"1," * 4_000_001 + b"1]}", "invalid", "4,000,000 values"),
        (b" " * ((64 << 20) + 1), "body_too_large", "longer than"),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else "",
)
def test_what_is_no_document_is_refused(admin: Admin, body: bytes, code: str, says: str) -> None:
    for path in ("diff", "apply"):
        assert says in admin.refused(code, "POST", f"/v1/config/{path}", content=body)["detail"]
    assert admin.get("/v1/config/progress") == {"state": "idle", "done": 0, "of": 0}


def test_a_hundred_mistakes_are_shown(admin: Admin) -> None:
    wanted = default(plans=[{"name": f"p{n}", "rates": ["x"]} for n in range(150)])
    problem = admin.refused("invalid", "POST", "/v1/config/apply", wanted)
    assert len(problem["errors"]) == 100
    assert problem["detail"].startswith("/tenants/0/plans/0/rates: rates: 'x' is not a rate")
    assert problem["detail"].endswith("and 149 more mistakes")


def test_a_tenant_is_not_pruned(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    assert "`gatectl tenant remove acme`" in mistakes(admin, default(), prune=True)["/tenants"]
    assert differences(admin, default(), prune=True, tenant="default") == []
    assert "this is about" in mistakes(admin, default(), tenant="acme")["/tenants/0/slug"]
    assert admin.refused("not_found", "POST", "/v1/config/diff", default(), params={"tenant": "acm"})
    assert differences(admin, document({"slug": "acme"}), prune=True) == []  # the tenant default is always there


def test_a_currency_stays_once_there_are_bills(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    wanted = document({"slug": "acme", "currency": "EUR"})
    admin.plane.told.clear()
    applied(admin, wanted)
    assert admin.plane.told == ["caught up", "snapshot"]
    with admin.control.database.write() as session:
        session.connection().exec_driver_sql(
            "INSERT INTO cycle (tenant_id, period, starts_at, ends_at) VALUES (2, '2026-09', 0, 1)"
        )
    wanted["tenants"][0]["currency"] = "JPY"
    assert "has bills in EUR" in mistakes(admin, wanted)["/tenants/0/currency"]


def test_each_apply_is_a_revision_and_so_is_what_was_there_before(admin: Admin) -> None:
    furnish(admin)
    before = dump(admin)
    answer = applied(admin, default(plans=[{"name": "new"}]), message="a plan for them")
    assert {name: answer["revision"][name] for name in ("number", "kind", "message", "added", "actor")} == {
        "number": 2, "kind": "apply", "message": "a plan for them", "added": 1, "actor": "root",
    }  # fmt: skip
    listed = admin.get("/v1/config/revisions")["items"]
    assert [(each["number"], each["kind"]) for each in listed] == [(2, "apply"), (1, "found")]
    assert admin.get("/v1/config/revisions/1")["document"] == before
    assert admin.get("/v1/config/revisions/2")["document"] == dump(admin)
    applied(admin, default(plans=[{"name": "newer"}]))
    assert [each["kind"] for each in admin.get("/v1/config/revisions")["items"]] == ["apply", "apply", "found"]
    admin.delete("/v1/plans/newer")
    applied(admin, default(plans=[{"name": "newest"}]))
    kinds = [each["kind"] for each in admin.get("/v1/config/revisions", limit=2)["items"]]
    assert kinds == ["apply", "found"]
    admin.refused("not_found", "GET", "/v1/config/revisions/17")
    admin.refused("not_found", "GET", "/v1/config/revisions/x")


def test_a_rollback_brings_back_what_was(admin: Admin) -> None:
    furnish(admin)
    before = dump(admin)
    wanted = json.loads(json.dumps(before))
    wanted["tenants"][0]["services"] = [{"slug": "other", "targets": TARGETS}]
    for section in ("routes", "keys", "plans"):
        wanted["tenants"][1][section] = []
    del wanted["tenants"][0]["default_plan"]
    for tenant in wanted["tenants"]:
        tenant.update(routes=[], keys=[], plans=[])
    applied(admin, wanted, prune=True)
    tried = admin("POST", "/v1/config/rollback", {"number": 1}, params={"dry_run": True}).json()
    assert tried["revision"] is None and tried["differences"]
    assert dump(admin) != before
    answer = admin("POST", "/v1/config/rollback", {"number": 1}, params={"base": tried["base"]}).json()
    assert (answer["revision"]["kind"], answer["revision"]["restored"]) == ("rollback", 1)
    assert without_ids(dump(admin)) == without_ids(before)  # what was revoked is, and has a successor
    again = admin("POST", "/v1/config/rollback", {"number": 1}).json()
    assert {each["kind"] for each in again["differences"]} <= {"key"}
    admin.refused("not_found", "POST", "/v1/config/rollback", {"number": 99})


def without_ids(whole: Any) -> Any:
    for tenant in whole["tenants"]:
        tenant["keys"] = sorted(({**key, "id": None} for key in tenant["keys"]), key=str)
    return whole


def test_a_base_that_is_no_more_is_refused(admin: Admin) -> None:
    wanted = default(plans=[{"name": "starter"}])
    base = admin("POST", "/v1/config/diff", wanted).json()["base"]
    assert base == admin("POST", "/v1/config/apply", wanted, params={"dry_run": True}).json()["base"]
    admin.post("/v1/plans", name="between")
    admin.refused("conflict", "POST", "/v1/config/apply", wanted, params={"base": base})
    assert admin.get("/v1/config/revisions")["items"] == []
    base = admin("POST", "/v1/config/diff", wanted).json()["base"]
    applied(admin, wanted, base=base)


def test_the_audit_has_a_line_for_each_object_as_if_it_had_been_made_alone(admin: Admin, another: Admin) -> None:
    furnish(admin)
    applied(another, dump(admin))
    for each in another.get("/v1/audit", limit=1000)["items"]:
        if each["action"].startswith("config."):
            assert each["after"]["added"] == 25
            continue
        noun = each["action"].partition(".")[0]
        ref = each["tenant"] if noun == "tenant" else each["subject"]
        query = {} if noun == "tenant" else {"tenant": each["tenant"]}
        shown = another.get(f"/v1/{noun}s/{ref}", **query)
        assert {name: shown[name] for name in each["after"]} == each["after"]
    applied(
        another,
        default(keys=[], services=[{"slug": "orders", "targets": TARGETS}], routes=[]),
        prune=True,
        tenant="default",
    )
    lines = another.get("/v1/audit", limit=1000)["items"]
    acts = {line["action"]: line for line in lines[:10]}
    assert acts["key.revoke"]["before"]["status"] == "active" and acts["key.revoke"]["after"]["status"] == "revoked"
    assert acts["service.set"]["before"]["hash_on"] != acts["service.set"]["after"]["hash_on"] == "address"
    assert acts["service.remove"]["after"] is None and acts["route.remove"]["before"]["tenant"] == "default"
    with another.control.database.read() as session:
        rows = session.connection().exec_driver_sql(
            "SELECT at, actor, action, tenant, subject, before, after, sha256 FROM audit ORDER BY id"
        )
        previous = GENESIS
        for *line, sha256 in rows:
            previous = link(previous, Line(*line))
            assert previous == sha256


def test_one_apply_at_a_time(admin: Admin) -> None:
    admin.control.applies.running = Applying()
    admin.refused("conflict", "POST", "/v1/config/apply", default())
    assert admin.get("/v1/config/progress")["state"] == "planning"
    admin.control.applies.running = None
    assert applied(admin, default())["revision"] is None


def test_documents_that_come_at_once_have_a_room_together(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_MOST_HELD_BYTES", 1000)
    admin.control.applies.held_bytes = 900  # of others
    admin.refused("unavailable", "POST", "/v1/config/diff", content=b" " * 200)
    assert admin.control.applies.held_bytes == 900
    assert differences(admin, default()) == []
    admin.refused("malformed", "POST", "/v1/config/apply", content=b" " * 50)
    assert admin.control.applies.held_bytes == 900


def test_a_comparison_shows_how_far_it_is(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    planned, seen = config._plan, []

    def plan(control: ControlState, *arguments: Any) -> Any:
        running = control.applies.running or control.applies.comparing
        result = planned(control, *arguments)
        seen.append(running and (running.state, running.done()))
        return result

    monkeypatch.setattr(config, "_plan", plan)
    assert len(differences(admin, default(plans=[{"name": "a"}, {"name": "b"}]))) == 2
    assert seen == [("planning", 3)]
    assert admin.get("/v1/config/progress")["state"] == "idle"


def test_what_others_change_meanwhile_is_seen(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the plan and the transaction there is a moment in which nobody is kept out."""
    store, between = config._store, ["a change"]

    def stored(*arguments: Any) -> Any:
        if between:
            with admin.control.database.write_elsewhere() as session:
                session.connection().exec_driver_sql("UPDATE plan SET quota = 7")
                session.connection().exec_driver_sql(
                    "INSERT INTO audit (at, actor, action, tenant, subject) VALUES (0, 'x', 'plan.set', 'default', 'x')"
                )
            between.clear()
        return store(*arguments)

    admin.post("/v1/plans", name="starter", quota=5)
    monkeypatch.setattr(config, "_store", stored)
    answer = applied(admin, default(plans=[{"name": "starter", "quota": 6}]))
    assert answer["differences"][0]["fields"] == [{"field": "quota", "before": 7, "after": 6}]


def test_keys_that_were_imported_are_no_part_of_it(admin: Admin) -> None:
    """There may be a million, and a file that does not name them must not revoke them."""
    admin.post("/v1/plans", name="starter")
    lines = ["secret,name,plan", "sk_live_0123456789abcdef,theirs,starter"]
    assert admin("POST", "/v1/keys/import", content="\n".join(lines).encode()).status_code == 200
    assert dump(admin)["tenants"][0]["keys"] == []
    applied(admin, default(keys=[{"name": "ours"}]), prune=True)
    assert admin.get("/v1/keys/theirs")["status"] == "active"
    assert "imported need it still" in mistakes(admin, default(plans=[]), prune=True)["/tenants/0/plans"]
    theirs = admin.get("/v1/keys/theirs")["id"]
    assert "or was imported" in mistakes(admin, default(keys=[{"id": theirs}]))["/tenants/0/keys/0/id"]


def test_what_is_of_a_day_stays_as_it_is(admin: Admin) -> None:
    """An operator has suspended, drained and disabled at night; a file applied in the morning lifts none of it."""
    document = default(services=[{"slug": "orders", "targets": TARGETS}], keys=[{"name": "ci"}])
    applied(admin, document)
    admin.patch("/v1/tenants/default", suspended=True)
    admin.post("/v1/targets/drain", service="orders", target=TARGETS[0])
    admin.post("/v1/keys/ci/disable")
    document["tenants"][0]["name"] = "Shop"
    assert applied(admin, document)["changed"] == 1
    assert admin.get("/v1/tenants/default")["suspended"] is True
    assert admin.get("/v1/services/orders")["drained"] == [TARGETS[0]]
    assert admin.get("/v1/keys/ci")["status"] == "disabled"
