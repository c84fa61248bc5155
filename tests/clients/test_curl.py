"""curl: uploads with and without a length, Expect, HTTP/1.0, parallel transfers, codings and ranges left alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Door
from tests.clients.upstream import FILE

BODY = b"0123456789abcdef" * 100_000  # above the megabyte from which curl expects 100 Continue

Curl = Callable[..., bytes]


@pytest.fixture
def run(door: Door, curl: str, home: Path) -> Curl:
    """Runs curl against the service; what it prints."""

    def run(*arguments: str, path: str = "/echo", body: bytes = b"") -> bytes:
        argv = [curl, "--silent", "--show-error", "--max-time", "20", "--header", f"X-API-Key: {door.key}", *arguments]
        done = subprocess.run([*argv, door.url + path], input=body, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def said(output: bytes) -> Any:
    """What the echo says of the request, after any heads that curl was asked to show."""
    return json.loads(output[output.index(b"{") :])


def check_body(output: bytes, method: str, body: bytes) -> dict[str, str]:
    echo = said(output)
    assert (echo["method"], echo["bytes"], echo["sha256"]) == (method, len(body), hashlib.sha256(body).hexdigest())
    return {name.lower(): value for name, value in echo["headers"]}


def test_get(run: Curl, door: Door) -> None:
    output = run("--include", path="/echo/a%2Fb//c;d?x=%20&y=+")
    assert output.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nX-Request-Id: " in output
    assert said(output)["target"] == "/echo/a%2Fb//c;d?x=%20&y=+"
    assert door.key.encode() not in output


def test_key_as_bearer(door: Door, curl: str, home: Path) -> None:
    argv = [curl, "--silent", "--write-out", "%{http_code}", "--oauth2-bearer"]
    for key, status in ((door.key, b"200"), ("nobody's", b"401")):
        done = subprocess.run([*argv, key, f"{door.url}/echo"], capture_output=True, timeout=60)
        assert done.stdout.endswith(status)
        assert b"authorization" not in done.stdout.lower()


def test_post(run: Curl) -> None:
    headers = check_body(run("--data-binary", "@-", body=b"a=1"), "POST", b"a=1")
    assert headers["content-length"] == "3"


@pytest.mark.parametrize("expect", [True, False], ids=["Expect", "no Expect"])
def test_put(run: Curl, home: Path, expect: bool) -> None:
    file = home / "body"
    file.write_bytes(BODY)
    output = run("--include", "--upload-file", str(file), *(() if expect else ("--header", "Expect:")))
    assert output.count(b"HTTP/1.1 100 Continue\r\n\r\n") == expect
    assert check_body(output, "PUT", BODY)["content-length"] == str(len(BODY))


def test_put_in_chunks(run: Curl) -> None:
    """Standard input has no length."""
    headers = check_body(run("--upload-file", "-", body=BODY), "PUT", BODY)
    assert headers["transfer-encoding"] == "chunked"
    assert "content-length" not in headers


def test_form(run: Curl) -> None:
    echo = said(run("--form", "name=value", "--form", "file=@-;filename=x", body=BODY))
    assert echo["bytes"] > len(BODY)


def test_head(run: Curl) -> None:
    output = run("--head", path="/file")
    assert output.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: %d\r\n" % len(FILE) in output


def test_http_1_0(run: Curl) -> None:
    output = run("--http1.0", "--include")
    assert (said(output)["method"], said(output)["bytes"]) == ("GET", 0)
    assert b"\r\nConnection: close\r\n" in output


def test_http_2_is_declined(run: Curl) -> None:
    """The upgrade to h2c is not taken up: curl goes on in HTTP/1.1."""
    output = run("--http2", "--include")
    assert output.startswith(b"HTTP/1.1 200 OK\r\n")
    assert "upgrade" not in {name.lower() for name, _ in said(output)["headers"]}


def test_one_connection_for_many(run: Curl, door: Door) -> None:
    again = [f"{door.url}/echo/{number}" for number in range(5)]
    output = run("--write-out", "\n%{num_connects}\n", *again)
    assert [line for line in output.splitlines() if line.isdigit()] == [b"1", b"0", b"0", b"0", b"0", b"0"]


def test_parallel(run: Curl, door: Door) -> None:
    again = [f"{door.url}/echo/{number}" for number in range(40)]
    output = run("--parallel", "--parallel-max", "10", "--write-out", "\n%{http_code}\n", *again)
    assert output.splitlines().count(b"200") == 41


def test_coding_is_left_alone(run: Curl) -> None:
    assert run("--compressed", path="/gzip") == FILE
    assert gzip.decompress(run("--header", "Accept-Encoding: gzip", path="/gzip")) == FILE


def test_range(run: Curl) -> None:
    output = run("--include", "--range", "100-199", path="/file")
    assert output.startswith(b"HTTP/1.1 206 Partial Content\r\n")
    assert b"\r\nContent-Range: bytes 100-199/%d\r\n" % len(FILE) in output
    assert output.endswith(FILE[100:200])


def test_methods(run: Curl) -> None:
    for method in ("PATCH", "DELETE", "OPTIONS"):
        assert said(run("--request", method))["method"] == method
