"""Tokens: shown once, kept nowhere, and revoked by name."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon
from tests.gatectl.remote_answers import SECRET
from tests.gatectl.test_failures import assert_one_line
from tests.gatectl.test_keys import small_files

pytestmark = pytest.mark.usefixtures("daemon")


def test_a_token_is_made_as_it_was_asked_for(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("token", "create", "ci", "--role", "viewer", "-t", "acme") == (0, SECRET + "\n", "")
    assert daemon.requests[-1] == (
        "POST", "/v1/tokens", {}, {"name": "ci", "role": "viewer", "tenant": "acme"},
    )  # fmt: skip
    assert gatectl("token", "create", "all", "--role", "admin", "--expires", "2099-01-31").code == 0
    assert daemon.requests[-1][3] == {"name": "all", "role": "admin", "expires_at": "2099-01-31T00:00:00Z"}


def test_a_token_goes_to_a_file_of_its_own(gatectl: Gatectl, folder: Path) -> None:
    file = folder / "ci.token"
    made = gatectl("token", "create", "ci", "--role", "viewer", "--out", str(file), "-o", "json")
    assert (made.code, file.read_text(), file.stat().st_mode & 0o777) == (0, SECRET + "\n", 0o600)
    assert SECRET not in made.out
    assert_one_line(gatectl("token", "create", "b", "--role", "viewer", "--out", str(file)), 2, "exists")


def test_one_that_cannot_be_written_down_is_revoked(gatectl: Gatectl, daemon: FakeDaemon, folder: Path) -> None:
    ended = subprocess.run(
        gatectl.argv("token", "create", "ci", "--role", "viewer", "--out", str(folder / "token")),
        env=gatectl.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=30, preexec_fn=small_files,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "the new token ci was revoked again" in ended.stderr
    assert SECRET not in ended.stderr
    assert daemon.requests[-1][:2] == ("DELETE", "/v1/tokens/tok_nw22pq33")


def test_tokens_are_revoked_all_or_none(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert_one_line(gatectl("token", "revoke", "laptop", "zzz", "--yes"), 3, "no token 'zzz'", "gatectl token list")
    assert_one_line(gatectl("token", "revoke", "laptop", "old", "--yes"), 4, "was revoked at")
    assert_one_line(gatectl("token", "revoke", "laptop"), 2, "nobody to ask whether to revoke token laptop", "--yes")
    assert gatectl("token", "revoke", "laptop", "tok_ab12cd34", "--dry-run").out == "would revoke token laptop\n"
    assert [each["status"] for each in daemon.state["tokens"]] == ["active", "active", "revoked"]
    ended = gatectl("token", "revoke", "laptop", "acme-ci", "--yes", "-o", "json")
    assert [each["status"] for each in json.loads(ended.out)["items"]] == ["revoked", "revoked"]
    assert {each["status"] for each in daemon.state["tokens"]} == {"revoked"}


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (
            ("create", "laptop", "--role", "viewer"),
            4,
            ("token 'laptop' exists already", "'gatectl token create --help'"),
        ),
        (("create", "ci"), 2, ("missing option '--role'",)),
        (("create", "ci", "--role", "god"), 2, ("--role",)),
        (("create", "ci", "--role", "viewer", "--expires", "yesterday"), 2, ("--expires", "in the past")),
        (("create", "ci", "--role", "viewer", "-o", "id"), 2, ("would lose the token", "--out FILE")),
        (("revoke", SECRET, "--yes"), 2, ("that is a token itself", "call it by its name")),
    ],
)
def test_what_cannot_be_is_one_line(
    gatectl: Gatectl, daemon: FakeDaemon, words: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    ended = gatectl("token", *words)
    assert_one_line(ended, code, *parts)
    assert SECRET not in ended.err
    assert len(daemon.state["tokens"]) == 3
