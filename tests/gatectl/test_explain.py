"""`gatectl explain`: what it asks, and what it never sends or says."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from contextlib import suppress
from typing import Any

import pytest

from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import SECRET, FakeDaemon
from tests.gatectl.problems import ProblemError


def asked(daemon: FakeDaemon) -> dict[str, Any]:
    """The one question that was put to the daemon."""
    ((method, path, _, body),) = daemon.requests
    assert (method, path) == ("POST", "/v1/explain")
    return dict(body)


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["GET", "/a?b=c"], {"method": "GET", "path": "/a?b=c"}),
        (["/a"], {"method": "GET", "path": "/a"}),
        (["--key", "ci", "POST", "/a", "--body", "10MiB"],
         {"method": "POST", "path": "/a", "key": "ci", "body_bytes": 10 << 20}),
        (["GET", "http://api.example.com:81/a?b"], {"method": "GET", "path": "/a?b", "host": "api.example.com:81"}),
        (["GET", "https://api.example.com"], {"method": "GET", "path": "/", "host": "api.example.com"}),
        (["GET", "http://a/b", "--host", "c"], {"method": "GET", "path": "/b", "host": "c"}),
        (["GET", "/a", "-H", "A: b", "--header", "C: d", "--address", "::1"],
         {"method": "GET", "path": "/a", "headers": ["A: b", "C: d"], "address": "::1"}),
        (["--key", SECRET, "GET", "/a"], {"method": "GET", "path": "/a", "key": SECRET[:11]}),
    ],
)  # fmt: skip
def test_what_is_asked(daemon: FakeDaemon, gatectl: Gatectl, arguments: list[str], question: dict[str, Any]) -> None:
    ended = gatectl("explain", *arguments)
    assert (ended.code, ended.err) == (0, "")
    assert asked(daemon) == question


def test_a_method_is_one_in_small_letters_too(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    gatectl("explain", "post", "/a")
    assert asked(daemon)["method"] == "POST"


def test_the_tenant_is_the_keys(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    gatectl("explain", "--key", "ci", "GET", "/a", "-t", "acme")
    assert daemon.requests[0][2] == {"tenant": "acme"}


def test_a_key_comes_by_standard_input(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    done = subprocess.run(
        gatectl.argv("explain", "--secret-stdin", "GET", "/a"),
        env=gatectl.environment, input=SECRET + "\n", capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0
    assert asked(daemon) == {"method": "GET", "path": "/a", "secret": SECRET}
    assert SECRET not in done.stdout + done.stderr


def test_a_key_is_typed_unseen(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        gatectl.argv("explain", "--secret-stdin", "GET", "/a"),
        env=gatectl.environment, stdin=its, stdout=its, stderr=its, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    written = b""
    while b"API key: " not in written:  # what is typed before it is thrown away
        written += os.read(ours, 1024)
    os.write(ours, SECRET.encode() + b"\n")
    with suppress(OSError):  # EIO: the last writer has gone
        while more := os.read(ours, 1024):
            written += more
    os.close(ours)
    assert process.wait(30) == 0
    assert asked(daemon)["secret"] == SECRET
    assert SECRET.encode() not in written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["GET", "/a", "-H", f"X-API-Key: {SECRET}"], "a header holds a key, which would stay in the shell's history"),
        (["--key", "ci", "--secret-stdin", "GET", "/a"], "--key and --secret-stdin name a key each"),
        (["--secret-stdin", "GET", "/a"], "standard input holds no key"),
        (["ff42db4e2b8f4688", "--key", "ci"], "a request that has been is explained by its id alone"),
        (["GET"], "GET needs a path; such as: gatectl explain GET /orders/42"),
        (["GET", "/a", "--body", "big"], "--body: 'big' is not a size"),
        ([], "missing argument"),
    ],
)
def test_what_makes_no_sense_is_not_asked(
    daemon: FakeDaemon, gatectl: Gatectl, arguments: list[str], message: str
) -> None:
    ended = gatectl("explain", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert SECRET not in ended.err
    assert daemon.requests == []


@pytest.mark.usefixtures("daemon")
def test_a_script_that_wants_the_exit_code_alone_says_so(gatectl: Gatectl) -> None:
    assert gatectl("explain", "ff42db4e2b8f4688", "-q") == (8, "", "")
    assert gatectl("explain", "/a", "-q") == (0, "", "")


@pytest.mark.usefixtures("daemon")
def test_what_nobody_remembers_is_not_found(gatectl: Gatectl) -> None:
    ended = gatectl("explain", "0123")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == "gatectl: no worker remembers request '0123': each worker keeps some\n"


def test_with_no_worker_the_gateway_is_not_there(
    daemon: FakeDaemon, gatectl: Gatectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object) -> tuple[int, Any]:
        raise ProblemError(503, "unavailable", "no worker is serving")

    monkeypatch.setattr(daemon, "answer", answer)
    ended = gatectl("explain", "GET", "/a")
    assert (ended.code, ended.out) == (6, "")
    assert ended.err == "gatectl: no worker is serving; try again in a moment\n"


@pytest.mark.usefixtures("daemon")
def test_every_step_is_a_line_for_programs(gatectl: Gatectl) -> None:
    lines = gatectl("explain", "ff42db4e2b8f4688", "-o", "ndjson").out.splitlines()
    steps = [json.loads(line) for line in lines]
    assert [step["step"] for step in steps][-2:] == ["limits", "upstream"]
    assert [limit["name"] for limit in steps[-2]["limits"]] == ["minute", "month"]
