"""Services over the admin API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trustme

from gatewayd.conf import TlsConf
from gatewayd.control.compile import snapshot
from tests.control.conftest import Admin

TARGET = "http://127.0.0.1:8001"


def test_a_service_is_added_with_defaults(admin: Admin) -> None:
    added = admin.post("/v1/services", slug="orders", targets=[TARGET + "/"])
    assert added == {
        "id": added["id"],
        "slug": "orders",
        "tenant": "default",
        "targets": [TARGET],
        "paths": [],
        "auth": "key",
        "preserve_host": False,
        "timeout_s": 30.0,
        "connect_timeout_s": 10.0,
        "first_byte_timeout_s": 30.0,
        "idle_timeout_s": 300.0,
        "tunnel_lifetime_s": 86400.0,
        "body_limit_bytes": None,
        "in_flight_limit": None,
        "key_header": "X-API-Key",
        "tls_verify": True,
        "tls_server_name": None,
        "tls_ca_file": None,
        "tls_cert_file": None,
        "tls_key_file": None,
        "weights": {TARGET: 1},
        "drained": [],
        "balance": "round-robin",
        "hash_on": "address",
        "health": {
            "path": None, "interval_s": 10.0, "timeout_s": 5.0, "healthy_after": 2, "unhealthy_after": 3,
            "eject_after": None, "eject_s": 30.0, "slow_start_s": 0.0,
        },
        "breaker": {"failures": 20, "ratio": 0.5, "window_s": 10.0, "open_s": 10.0},
        "request_headers": [],
        "response_headers": [],
        "url": "http://127.0.0.1:8080/orders/",
        "created_at": added["created_at"],
    }  # fmt: skip
    assert admin.get("/v1/services/orders") == admin.get(f"/v1/services/{added['id']}") == added
    assert admin.plane.told == ["snapshot"]


def test_the_url_is_the_one_that_a_caller_uses(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    assert admin.post("/v1/services?tenant=acme", slug="a", targets=[TARGET])["url"].endswith(":8080/acme/a/")
    assert admin.post("/v1/services", slug="b", targets=[TARGET], paths=["/v1/b/"])["url"].endswith(":8080/v1/b")


def test_every_setting_is_kept_and_reaches_the_data_plane(admin: Admin) -> None:
    settings = {
        "targets": [TARGET, "https://[::1]:9/base", "unix:/run/app.sock:/v1"],
        "paths": ["/v1/orders", "/"],
        "auth": "none",
        "preserve_host": True,
        "timeout_s": 1.5,
        "connect_timeout_s": 2,
        "first_byte_timeout_s": 3.0,
        "idle_timeout_s": 4.0,
        "tunnel_lifetime_s": 5.0,
        "body_limit_bytes": 0,
        "in_flight_limit": 6,
        "tls_verify": False,
        "tls_server_name": "orders.internal",
        "key_header": "X-Orders-Key",
    }
    added = admin.post("/v1/services", slug="orders", **settings)
    assert {name: added[name] for name in settings} == settings
    assert admin.patch("/v1/services/orders") == added
    reverted = admin.patch("/v1/services/orders", targets=[TARGET], paths=[], body_limit_bytes=None, auth="key")
    assert (reverted["targets"], reverted["paths"], reverted["body_limit_bytes"]) == ([TARGET], [], None)
    assert reverted["preserve_host"] is True
    tenants, (service,), _ = snapshot(admin.control.database.lookup)
    assert [tenant.slug for tenant in tenants] == ["default"]
    assert (service.slug, service.tenant, service.auth, service.timeout_s) == ("orders", "default", "key", 1.5)
    assert [target.url for target in service.targets] == [TARGET]
    assert (service.first_byte_timeout_s, service.idle_timeout_s, service.tunnel_lifetime_s) == (3.0, 4.0, 5.0)
    assert (service.in_flight_limit, service.tls) == (6, TlsConf(verify=False, server_name="orders.internal"))


def test_what_is_null_does_not_apply(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=[TARGET], timeout_s=None, tunnel_lifetime_s=None)
    added = admin.post("/v1/services", slug="other", targets=[TARGET], in_flight_limit=1, tls_server_name="a")
    assert (added["in_flight_limit"], added["tls_server_name"]) == (1, "a")
    nothing = dict.fromkeys(("timeout_s", "tunnel_lifetime_s", "in_flight_limit", "tls_server_name"))
    changed = admin.patch("/v1/services/other", **nothing)
    assert {name: changed[name] for name in nothing} == nothing
    for service in snapshot(admin.control.database.lookup)[1]:
        assert (service.timeout_s, service.tunnel_lifetime_s, service.in_flight_limit) == (None, None, None)
        assert service.tls == TlsConf()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, two certificates with their keys, and files that are none of these."""
    folder = tmp_path_factory.mktemp("pem")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("a", "b"):
        issued = ca.issue_cert(f"{name}.example")
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    (folder / "text").write_text("not a certificate")
    (folder / "damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (folder / "locked.key").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    os.mkfifo(folder / "pipe")
    return folder


def test_tls_files_are_kept_by_path(admin: Admin, pem: Path) -> None:
    files = {"tls_ca_file": f"{pem}/ca.pem", "tls_cert_file": f"{pem}/a.pem", "tls_key_file": f"{pem}/a.key"}
    added = admin.post("/v1/services", slug="orders", targets=["https://a"], **files)
    assert {name: added[name] for name in files} == files
    (service,) = snapshot(admin.control.database.lookup)[1]
    assert service.tls == TlsConf(True, None, *files.values())
    other = {"tls_cert_file": f"{pem}/b.pem", "tls_key_file": f"{pem}/b.key"}
    assert admin.patch("/v1/services/orders", **other) == added | other
    assert admin.patch("/v1/services/orders", **dict.fromkeys(files)) == added | dict.fromkeys(files)
    assert b"PRIVATE KEY" not in b"".join(
        path.read_bytes() for path in admin.control.database.path.parent.glob("*.db*")
    )


@pytest.mark.parametrize(
    ("files", "field", "says"),
    [
        ({"tls_ca_file": "ca.pem"}, "tls_ca_file", "must be the whole path of a file"),
        ({"tls_ca_file": ""}, "tls_ca_file", "must be the whole path of a file"),
        ({"tls_ca_file": "/\0"}, "tls_ca_file", "must be the whole path of a file"),
        ({"tls_ca_file": "@/none"}, "tls_ca_file", "@/none cannot be read by the gateway: no such file or directory"),
        ({"tls_ca_file": "@"}, "tls_ca_file", "cannot be read by the gateway: is a directory"),
        ({"tls_ca_file": "@/pipe"}, "tls_ca_file", "@/pipe is not a file"),
        ({"tls_ca_file": "@/text"}, "tls_ca_file", "@/text holds no PEM certificate"),
        ({"tls_ca_file": "@/a.key"}, "tls_ca_file", "@/a.key holds no PEM certificate"),
        ({"tls_ca_file": "@/damaged.pem"}, "tls_ca_file", "@/damaged.pem holds a certificate that is damaged"),
        ({"tls_cert_file": "@/a.pem"}, "tls_key_file", "a certificate needs its key too"),
        ({"tls_key_file": "@/a.key"}, "tls_cert_file", "a key needs its certificate too"),
        ({"tls_cert_file": "@/a.key", "tls_key_file": "@/a.key"}, "tls_cert_file", "a.key holds no PEM certificate"),
        ({"tls_cert_file": "@/a.pem", "tls_key_file": "@/a.pem"}, "tls_key_file", "a.pem holds no PEM private key"),
        ({"tls_cert_file": "@/a.pem", "tls_key_file": "@/none"}, "tls_key_file", "no such file or directory"),
        ({"tls_cert_file": "@/a.pem", "tls_key_file": "@/locked.key"}, "tls_key_file", "protected by a passphrase"),
        ({"tls_cert_file": "@/damaged.pem", "tls_key_file": "@/a.key"}, "tls_key_file", "is damaged"),
        (
            {"tls_cert_file": "@/a.pem", "tls_key_file": "@/b.key"},
            "tls_key_file",
            "b.key is not the key of the certificate in @/a.pem",
        ),
    ],
)  # fmt: skip
def test_tls_files_that_cannot_be_used_are_refused(
    admin: Admin, pem: Path, files: dict[str, str], field: str, says: str
) -> None:
    asked = {name: path.replace("@", str(pem)) for name, path in files.items()}
    good = {"slug": "orders", "targets": ["https://a"]}
    problem = admin.refused("invalid", "POST", "/v1/services", good | asked)
    assert problem["field"] == field
    assert says.replace("@", str(pem)) in problem["detail"]
    assert "BEGIN" not in problem["detail"]
    added = admin.post("/v1/services", **good)
    admin.refused("invalid", "PATCH", "/v1/services/orders", asked)
    assert admin.get("/v1/services/orders") == added


def test_a_file_that_went_away_later_is_in_nobodys_way(admin: Admin, pem: Path, tmp_path: Path) -> None:
    passing = tmp_path / "ca.pem"
    passing.write_bytes((pem / "ca.pem").read_bytes())
    admin.post("/v1/services", slug="orders", targets=["https://a"], tls_ca_file=str(passing))
    passing.unlink()
    assert admin.patch("/v1/services/orders", timeout_s=2)["timeout_s"] == 2
    admin.refused("invalid", "PATCH", "/v1/services/orders", {"tls_ca_file": str(passing)})


@pytest.mark.parametrize("text", ["# Autorité de certification\n", "# Wurzel für Müller\n"])
@pytest.mark.parametrize("coding", ["utf-8", "latin-1"])
def test_what_is_written_around_certificates_is_in_any_coding(
    admin: Admin, pem: Path, tmp_path: Path, text: str, coding: str
) -> None:
    bundle = tmp_path / "ca.pem"
    certificate = (pem / "ca.pem").read_bytes()
    bundle.write_bytes(text.encode(coding) + certificate + text.encode(coding) + certificate)
    added = admin.post("/v1/services", slug="orders", targets=["https://a"], tls_ca_file=str(bundle))
    assert added["tls_ca_file"] == str(bundle)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"slug": "a/b"}, "slug"),
        ({"slug": "proxy"}, "slug"),
        ({"targets": []}, "targets"),
        ({"targets": "http://a"}, "targets"),
        ({"targets": [7]}, "targets"),
        ({"targets": None}, "targets"),
        ({"targets": ["nonsense"]}, "targets"),
        ({"targets": ["ftp://a"]}, "targets"),
        ({"targets": ["unix:app.sock"]}, "targets"),
        ({"targets": ["http://a:99999"]}, "targets"),
        ({"targets": ["http://a", "http://a/"]}, "targets"),
        ({"targets": ["http://a"] * 101}, "targets"),
        ({"paths": ["v1"]}, "paths"),
        ({"paths": ["/a//b"]}, "paths"),
        ({"paths": ["/proxy/x"]}, "paths"),
        ({"paths": ["/a", "/a/"]}, "paths"),
        ({"auth": "jwt"}, "auth"),
        ({"preserve_host": "yes"}, "preserve_host"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"timeout_s": 1e9}, "timeout_s"),
        ({"timeout_s": "30s"}, "timeout_s"),
        ({"connect_timeout_s": 0}, "connect_timeout_s"),
        ({"connect_timeout_s": None}, "connect_timeout_s"),
        ({"first_byte_timeout_s": 0}, "first_byte_timeout_s"),
        ({"first_byte_timeout_s": None}, "first_byte_timeout_s"),
        ({"idle_timeout_s": 0}, "idle_timeout_s"),
        ({"idle_timeout_s": None}, "idle_timeout_s"),
        ({"tunnel_lifetime_s": 0}, "tunnel_lifetime_s"),
        ({"in_flight_limit": 0}, "in_flight_limit"),
        ({"in_flight_limit": 1.5}, "in_flight_limit"),
        ({"tls_verify": None}, "tls_verify"),
        ({"tls_server_name": "a:443"}, "tls_server_name"),
        ({"tls_server_name": ""}, "tls_server_name"),
        ({"tls_ca_file": 7}, "tls_ca_file"),
        ({"body_limit_bytes": -1}, "body_limit_bytes"),
        ({"body_limit_bytes": 1.5}, "body_limit_bytes"),
        ({"body_limit_bytes": 10**30}, "body_limit_bytes"),
        ({"key_header": "Host"}, "key_header"),
        ({"key_header": "a b"}, "key_header"),
        ({"retries": 3}, "retries"),
    ],
)
def test_bad_services_are_refused_when_added_and_when_changed(admin: Admin, body: dict[str, Any], field: str) -> None:
    good = {"slug": "orders", "targets": [TARGET]}
    problem = admin.refused("invalid", "POST", "/v1/services", good | body)
    assert (problem["field"], field in problem["detail"]) == (field, True)
    assert admin.get("/v1/services")["items"] == []
    added = admin.post("/v1/services", **good)
    admin.refused("invalid", "PATCH", "/v1/services/orders", body)
    assert admin.get("/v1/services/orders") == added


def test_errors_are_in_plain_words(admin: Admin) -> None:
    def detail(**body: Any) -> str:
        problem = admin.refused("invalid", "POST", "/v1/services", {"slug": "a", "targets": [TARGET]} | body)
        return str(problem["detail"])

    assert detail(auth="jwt") == "auth must be one of key, none"
    assert detail(timeout_s=0) == "timeout_s must be more than 0"
    assert detail(timeout_s="1") == "timeout_s must be a number or null, not a string"
    assert detail(connect_timeout_s="1") == "connect_timeout_s must be a number, not a string"
    assert detail(body_limit_bytes="1") == "body_limit_bytes must be a whole number or null, not a string"
    assert detail(targets=[]) == "targets must not be empty"
    assert detail(retries=3).startswith("'retries' is not known here; known are slug, targets, paths, auth")
    problem = admin.refused("invalid", "POST", "/v1/services", {"slug": "a"})
    assert problem["detail"] == "targets is missing"


def test_a_slug_is_unique_in_its_tenant_alone(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    admin.post("/v1/services", slug="orders", targets=[TARGET])
    admin.post("/v1/services?tenant=acme", slug="orders", targets=[TARGET])
    problem = admin.refused("conflict", "POST", "/v1/services", {"slug": "orders", "targets": [TARGET]})
    assert problem["detail"] == "service 'orders' exists already"


def test_addresses_cannot_be_claimed_twice(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    admin.post("/v1/services", slug="orders", targets=[TARGET], paths=["/v1/orders", "/orders"])
    for body in ({"paths": ["/v1/orders/"]}, {"paths": ["/orders"]}, {"paths": ["/default/orders"]}):
        problem = admin.refused("conflict", "POST", "/v1/services", {"slug": "b", "targets": [TARGET], **body})
        assert "already that of service orders" in problem["detail"]
    problem = admin.refused("conflict", "POST", "/v1/services?tenant=acme", {"slug": "b", "targets": [TARGET],
                                                                            "paths": ["/orders"]})  # fmt: skip
    assert problem["detail"] == "the address /orders is already that of service orders"
    admin.post("/v1/services", slug="b", targets=[TARGET], paths=["/v1"])
    admin.refused("conflict", "PATCH", "/v1/services/b", {"paths": ["/v1", "/v1/orders"]})
    admin.patch("/v1/services/orders", paths=["/v1/orders"])
    admin.delete("/v1/services/orders")
    admin.patch("/v1/services/b", paths=["/v1", "/v1/orders"])


def test_a_removed_service_is_gone_but_its_slug_is_free(admin: Admin) -> None:
    added = admin.post("/v1/services", slug="orders", targets=[TARGET])
    assert admin.delete("/v1/services/orders") == added
    admin.refused("not_found", "DELETE", "/v1/services/orders")
    assert snapshot(admin.control.database.lookup)[1] == ()
    assert admin.post("/v1/services", slug="orders", targets=[TARGET])["id"] != added["id"]


def test_a_misspelt_service_comes_with_a_near_one(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=[TARGET])
    assert admin.refused("not_found", "GET", "/v1/services/order")["did_you_mean"] == "orders"


def test_tenants_do_not_see_each_others_services(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    added = admin.post("/v1/services", slug="orders", targets=[TARGET])
    for ref in ("orders", added["id"]):
        admin.refused("not_found", "GET", f"/v1/services/{ref}?tenant=acme")
        admin.refused("not_found", "DELETE", f"/v1/services/{ref}?tenant=acme")
    assert admin.get("/v1/services", tenant="acme")["items"] == []


def test_services_are_listed_by_slug_and_page(admin: Admin) -> None:
    for slug in ("c", "a", "e", "b", "d"):
        admin.post("/v1/services", slug=slug, targets=[f"{TARGET}/{slug}"])
    first = admin.get("/v1/services", limit=2)
    second = admin.get("/v1/services", limit=2, after=first["next"])
    third = admin.get("/v1/services", limit=2, after=second["next"])
    pages = [[item["slug"] for item in page["items"]] for page in (first, second, third)]
    assert pages == [["a", "b"], ["c", "d"], ["e"]]
    assert third["next"] is None
    assert [item["targets"] for item in first["items"]] == [[f"{TARGET}/a"], [f"{TARGET}/b"]]


def test_the_gateway_is_not_put_in_front_of_itself(admin: Admin) -> None:
    listen = admin.get("/v1/status")["listen"]
    problem = admin.refused("invalid", "POST", "/v1/services", {"slug": "loop", "targets": [f"http://{listen}/orders"]})
    assert "this gateway itself" in problem["detail"]
    settings = admin.control.settings
    for path in (settings.admin_socket, settings.state_dir / "control.sock", f"{settings.state_dir}/../admin.sock"):
        problem = admin.refused("invalid", "POST", "/v1/services", {"slug": "loop", "targets": [f"unix:{path}"]})
        assert "this gateway itself" in problem["detail"]
