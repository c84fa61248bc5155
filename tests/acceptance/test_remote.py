"""The admin API from another machine: TLS, tokens, a certificate that is renewed, streams that end, a restart."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.daemons import Gateway, gateway

_AT = re.compile(r"^gatewayd: admin API for tokens at (https?://127\.0\.0\.1:(\d+))$", re.MULTILINE)


class House:
    """A gateway with an admin API for other machines, and an authority for its certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.renew()
        self.gateway: Gateway = None  # type: ignore[assignment]  # once it runs

    def renew(self, name: str = "localhost") -> None:
        issued = self.authority.issue_cert(name, "localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(str(self.folder / "key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(self.folder / "cert.pem"))

    @property
    def options(self) -> list[str]:
        files = ["--admin-tls-cert", str(self.folder / "cert.pem"), "--admin-tls-key", str(self.folder / "key.pem")]
        return ["--admin-listen", "127.0.0.1:0", *files]

    @property
    def log(self) -> str:
        return self.gateway.daemon.output()

    @property
    def port(self) -> int:
        found = _AT.search(self.log)
        assert found is not None, self.log
        return int(found[2])

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "ca.pem"))

    def local(self, method: str, path: str, json: Any = None) -> Any:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.folder / "admin.sock"))) as client:
            return client.request(method, f"http://gateway{path}", json=json, timeout=20).json()

    def token(self, name: str, role: str, tenant: str | None = None) -> str:
        return str(self.local("POST", "/v1/tokens", {"name": name, "role": role, "tenant": tenant})["token"])

    def remote(self, token: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}", verify=self.context(), headers=headers, timeout=20
        )

    def name_shown(self) -> str:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        with self.context().wrap_socket(plain, server_hostname="localhost") as encrypted:
            names: Any = dict(encrypted.getpeercert() or {})["subjectAltName"]
        return str(names[0][1])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("remote"))
    with gateway(made.folder, workers=1, options=made.options) as running:
        made.gateway = running
        yield made
    log = running.daemon.output()
    assert "Traceback" not in log, log
    assert not re.search(r"gwt_\w{8}_", log)
    assert running.daemon.process.returncode == 0


def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_a_token_does_what_its_role_may_and_the_audit_names_it(house: House) -> None:
    with house.remote(house.token("ci", "operator")) as remote:
        assert remote.get("/v1/whoami").json()["actor"] == "token:ci"
        made = remote.post("/v1/services", json={"slug": "orders", "targets": ["http://127.0.0.1:1"]})
        assert made.status_code == 201, made.text
        refused = remote.post("/v1/tokens", json={"name": "more", "role": "admin"})
        assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
        assert refused.json()["detail"] == "this takes the role admin, and token:ci is an operator"
    lines = house.local("GET", "/v1/audit?actor=token:ci")["items"]
    assert [line["action"] for line in lines] == ["service.add"]
    assert house.local("GET", "/v1/audit/verify")["ok"]


def test_without_a_token_nothing_but_whether_it_lives_is_told(house: House) -> None:
    with house.remote("gwt_guessed") as stranger:
        assert stranger.get("/healthz").status_code == 200
        for path in ("/v1/status", "/v1/whoami", "/nowhere"):
            answer = stranger.get(path)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_plain_http_and_old_tls_are_not_spoken(house: House) -> None:
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
        assert b"HTTP/1.1" not in plain.recv(100)
    old = house.context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="localhost")


def test_a_renewed_certificate_is_taken_up_and_half_of_one_is_not(house: House) -> None:
    with house.remote(house.token("long", "viewer")) as remote:
        assert remote.get("/v1/whoami").status_code == 200
        house.renew("renewed.example")
        os.kill(house.gateway.daemon.process.pid, signal.SIGHUP)
        until(lambda: house.name_shown() == "renewed.example")
        assert remote.get("/v1/whoami").status_code == 200  # the connection is the old one
        (house.folder / "key.pem").write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
        until(lambda: "the certificate in use stays" in house.log)
        assert house.name_shown() == "renewed.example"
        house.renew("again.example")
        until(lambda: house.name_shown() == "again.example")


def test_a_stream_ends_with_its_token(house: House) -> None:
    with house.remote(house.token("watcher", "viewer")) as remote, remote.stream("GET", "/v1/usage/tail") as tail:
        assert tail.status_code == 200
        lines = tail.iter_lines()
        house.local("DELETE", "/v1/tokens/watcher")
        with pytest.raises(httpx.HTTPError):
            next(lines)
    with house.remote("x") as remote:
        assert remote.get("/v1/whoami").status_code == 401


def test_a_bound_token_stays_in_its_tenant(house: House) -> None:
    house.local("POST", "/v1/tenants", {"slug": "acme"})
    with house.remote(house.token("acme's", "admin", "acme")) as remote:
        assert [tenant["slug"] for tenant in remote.get("/v1/tenants").json()["items"]] == ["acme"]
        assert remote.get("/v1/services").json()["items"] == []
        assert remote.get("/v1/services?tenant=default").status_code == 403
        assert remote.get("/v1/status").status_code == 403
        target = {"slug": "x", "targets": [f"unix:{house.folder}/admin.sock"]}
        assert remote.post("/v1/services", json=target).status_code in (403, 422)


def test_tokens_outlive_control_and_are_known_when_it_is_back(house: House) -> None:
    token = house.token("steady", "viewer")
    with house.remote(token) as remote:
        remote.get("/v1/whoami")
    before = house.log.count("is connected")
    control = subprocess.run(
        ["pgrep", "-P", str(house.gateway.daemon.process.pid), "-f", "gatewayd.control.main"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    os.kill(int(control.stdout), signal.SIGKILL)
    until(lambda: house.log.count("is connected") > before)
    with house.remote(token) as remote:
        assert remote.get("/v1/whoami").json()["actor"] == "token:steady"


def test_a_link_that_comes_to_lead_to_the_admin_socket_makes_nobody_an_admin(house: House) -> None:
    """A target that was harmless when it was named. The worker, which is the daemon's own, is not admitted."""
    link = house.folder / "app.sock"
    house.local("POST", "/v1/services", {"slug": "sly", "auth": "none", "targets": [f"unix:{link}"]})
    link.symlink_to(house.folder / "admin.sock")
    answer = httpx.get(f"{house.gateway.url}/sly/v1/keys", timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")
    house.local("DELETE", "/v1/services/sly")
