"""The document of the admin API: complete, and what the API does. Its answers are compared in every test (conftest)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gatewayd.control.admin import docs_page
from gatewayd.control.admin.openapi import document, undocumented
from gatewayd.control.admin.operations import OPERATIONS
from tests.control.conformance import published
from tests.control.conftest import Admin

SCHEMAS = published()["components"]["schemas"]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in published()["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_every_operation_says_what_it_does() -> None:
    assert undocumented(OPERATIONS) == []
    assert len(list(operations())) == len(OPERATIONS)
    for name, operation in operations():
        assert operation["summary"][0].isupper() and not operation["summary"].endswith("."), name
        assert "default" not in operation["responses"], name
    ids = [operation["operationId"] for _, operation in operations()]
    assert len(set(ids)) == len(ids)


def test_it_is_served_as_it_is_made(admin: Admin) -> None:
    assert admin.get("/openapi.json") == published()
    assert published()["openapi"] == "3.1.0"


def test_names_of_schemas_are_names() -> None:
    """Two Structs of one name would be called by where they lie."""
    assert [name for name in SCHEMAS if not re.fullmatch(r"[A-Z][A-Za-z]+", name)] == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **SCHEMAS[name]})


def test_what_is_sent_is_closed_and_what_is_answered_is_whole() -> None:
    assert SCHEMAS["NewPlan"]["additionalProperties"] is False
    assert SCHEMAS["NewPlan"]["required"] == ["name"]
    assert "additionalProperties" not in SCHEMAS["PlanView"]  # a later release may answer more
    assert set(SCHEMAS["PlanView"]["required"]) == set(SCHEMAS["PlanView"]["properties"])
    assert SCHEMAS["KeyView"]["properties"]["created_at"] == {"type": "string", "format": "date-time"}


def test_roles_are_written_and_tokens_are_needed_where_no_socket_tells_who_asks() -> None:
    close = published()["paths"]["/v1/billing/close"]["post"]
    assert close["description"].endswith("Takes the role admin.")
    assert close["security"] == [{}, {"bearer": []}, {"token": []}]
    remote = document(OPERATIONS, by_token=True)["paths"]
    assert remote["/v1/billing/close"]["post"]["security"] == [{"bearer": []}, {"token": []}]
    assert remote["/docs"]["get"]["security"] == []


def test_what_makes_an_object_links_to_what_is_done_with_it() -> None:
    links = published()["paths"]["/v1/keys"]["post"]["responses"]["201"]["links"]
    known = {operation["operationId"] for _, operation in operations()}
    assert links.keys() <= known
    assert links["post_keys_ref_rotate"]["parameters"] == {
        "path.ref": "$response.body#/id",
        "query.tenant": "$response.body#/tenant",
    }


def test_the_files_of_the_page_are_in_the_package() -> None:
    """And each says whose it is."""
    folder = Path(docs_page.__file__).parent / "docs"
    assert {path.name for path in folder.iterdir()} == {
        *docs_page.FILES, "index.html", "LICENSE", "NOTICE", "README.txt", "swagger-ui-bundle.js.LICENSE.txt",
    }  # fmt: skip
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert "sourceMappingURL" not in (folder / name).read_text()[-500:]


def test_the_page_loads_nothing_from_elsewhere(admin: Admin) -> None:
    page = admin("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 6
    for asset in assets:
        answer = admin("GET", f"/{asset}")
        assert answer.status_code == 200
        assert answer.content
    assert admin.refused("not_found", "GET", "/docs/files/page.jss")["did_you_mean"] == "page.js"
    admin.refused("not_found", "GET", "/docs/files/..%2fdocs_page.py")


# What is sent.


def test_a_body_says_what_it_is(admin: Admin) -> None:
    for content_type in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        body = b'{"slug": "acme"}'
        answer = admin("POST", "/v1/tenants?", content=body, headers={"content-type": content_type})
        assert answer.status_code in (201, 409)
    assert admin("POST", "/v1/tenants", content=b'{"slug": "bolt"}').status_code == 201  # says nothing
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "nonsense"):
        headers = {"content-type": content_type}
        problem = admin.refused("unsupported_media_type", "POST", "/v1/tenants", content=b"{}", headers=headers)
        assert problem["detail"] == f"send application/json (header Content-Type), not {content_type}"
    csv = admin.refused("unsupported_media_type", "POST", "/v1/keys/import", json={"a": 1})
    assert csv["detail"] == "send text/csv (header Content-Type), not application/json"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"slug": "a", "slug": "b"}', "the body has 'slug' twice in one object"),
        (b'{"slug": "a", "rates": [], "name": "\xff"}', "the body is not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b'{"slug": "\\ud800"}', "the body is not JSON: "),
        (b"[" * 100_000, "the body must be an object, not a list"),
        (b"", "the body is empty; send a JSON object"),
    ],
)
def test_what_is_no_json_to_everybody_is_refused(admin: Admin, body: bytes, detail: str) -> None:
    headers = {"content-type": "application/json"}
    assert admin.refused("malformed", "POST", "/v1/tenants", content=body, headers=headers)["detail"].startswith(detail)


@pytest.mark.parametrize("digits", [20, 400, 5000])
def test_a_number_beyond_all_bounds_is_refused(admin: Admin, digits: int) -> None:
    headers = {"content-type": "application/json"}
    for path, field in (("/v1/tenants", "burst"), ("/v1/plans", "quota"), ("/v1/plans", "included")):
        body = b'{"slug": "a", "name": "a", "%b": %b}' % (field.encode(), b"9" * digits)
        body = body.replace(b'"slug": "a", ', b"") if path == "/v1/plans" else body
        assert admin.refused("invalid", "POST", path, content=body, headers=headers)["field"] == field


def test_a_whole_number_may_be_written_with_a_point(admin: Admin) -> None:
    body = b'{"name": "a", "quota": 60.0, "rates": ["5/s"], "burst": 6e1, "alerts": [80.0]}'
    made = admin("POST", "/v1/plans", content=body, headers={"content-type": "application/json"}).json()
    assert (made["quota"], made["rates"][0]["burst"], made["alerts"]) == (60, 60, [80])
    for wrong in (b"60.5", b"1e300", b"[1.5]", b'{"a":' * 50_000):
        body = b'{"name": "b", "rates": ["5/s"], "burst": %b}' % wrong
        assert admin("POST", "/v1/plans", content=body).status_code in (400, 422)
    deep = b'{"name": 1.0, "burst": ' + b"[" * 50_000
    assert admin.refused("malformed", "POST", "/v1/plans", content=deep)


def test_what_is_twice_in_an_inner_object_is_refused(admin: Admin) -> None:
    body = b'{"labels": {"team": "a", "team": "b"}}'
    headers = {"content-type": "application/json"}
    admin.refused("malformed", "POST", "/v1/keys", content=body, headers=headers)


def test_null_is_no_value_of_a_query(admin: Admin) -> None:
    assert admin.refused("invalid", "GET", "/v1/keys?status=null")["detail"] == "status is null; leave it out"
    assert admin.refused("not_found", "GET", "/v1/keys?plan=null")  # a plan may be called so


def test_a_method_that_is_not_answered_hears_which_are(admin: Admin) -> None:
    for path, allowed in (
        ("/v1/services", "GET, HEAD, POST"),
        ("/v1/services/orders", "DELETE, GET, HEAD, PATCH"),
        ("/v1/keys/import", "GET, HEAD, POST"),
        ("/v1/keys/verify", "POST"),
        ("/v1/keys/ci/rotate", "POST"),
    ):
        answer = admin("PUT", path, {})
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_query_that_is_not_known_is_refused_everywhere(admin: Admin) -> None:
    """`?dry_run=true` where nothing knows of dry runs would else do it. Pages and probes bear what caches add."""
    admin.post("/v1/tenants", slug="acme")
    admin.post("/v1/keys", name="ci")
    refs = {"tenants": "acme", "keys": "ci", "quotas": "ci"}
    for path, methods in published()["paths"].items():
        for method, operation in methods.items():
            if not operation["responses"].keys() & {"401"}:
                continue
            body: Any = {} if "requestBody" in operation and path != "/v1/keys/import" else None
            at = re.sub(r"\{ref\}", refs.get(path.split("/")[2], "x"), path)
            headers = {"content-type": "text/csv"} if path == "/v1/keys/import" else {}
            problem = admin.refused("invalid", method.upper(), at + "?nonsense=1", body, headers=headers)
            assert problem["field"] == "nonsense", at
