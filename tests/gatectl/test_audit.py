"""The audit: found by what one remembers of it, read as what became of what, and checked."""

from __future__ import annotations

import pytest

from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon
from tests.gatectl.remote_answers import NOTED
from tests.gatectl.test_failures import assert_one_line

pytestmark = pytest.mark.usefixtures("daemon")


def test_filters_are_asked_of_the_gateway(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    ended = gatectl(
        "audit", "list", "--actor", "token:ci", "--action", "key", "--subject", "gw_x", "--since", "2026-11-01",
        "--until", "2026-11-02", "-t", "acme",
    )  # fmt: skip
    assert ended.code == 0
    assert daemon.requests[-1][2] == {
        "tenant": "acme", "actor": "token:ci", "action": "key", "subject": "gw_x", "since": "2026-11-01T00:00:00Z",
        "until": "2026-11-02T00:00:00Z", "limit": "100",
    }  # fmt: skip
    assert_one_line(gatectl("audit", "list", "--since", "soon"), 2, "--since: 'soon' is not a time")
    assert_one_line(gatectl("audit", "list", "--since", "1h", "--until", "2h"), 2, "is not before")


def test_a_change_is_read_as_what_became_of_what(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    coloured = gatectl.at_terminal("audit", "show", "2")
    assert "\x1b[38;5;160m- status: active\x1b[0m\n\x1b[38;5;28m+ status: revoked\x1b[0m\n" in coloured.out
    assert "name: old" not in coloured.plain, "what stayed is not told"
    added = gatectl.at_terminal("audit", "show", "1").plain
    assert added.endswith("\n\n+ slug: orders\n")
    daemon.state["audit"][0] |= {"before": {"a": [1], "b": None}, "after": {"a": [1, 2], "b": None}}
    assert gatectl.at_terminal("audit", "show", "2").plain.endswith("\n- a: [1]\n+ a: [1, 2]\n")
    daemon.state["audit"][0] |= {"before": None, "after": None}
    assert gatectl.at_terminal("audit", "show", "2").plain.endswith("\n\n  nothing that is shown has changed\n")
    daemon.state["audit"][0] |= {"before": {"name": "\x1b]0;x\x07"}, "after": None}
    assert "\x1b]" not in gatectl.at_terminal("audit", "show", "2").out


def test_one_that_is_not_there_is_said(gatectl: Gatectl) -> None:
    assert_one_line(gatectl("audit", "show", "3"), 3, "there is no change 3", "'gatectl audit list' shows their ids")
    assert_one_line(gatectl("audit", "show", "x"), 2, "x")


def test_a_hash_that_was_noted_must_be_there(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("audit", "verify", "--sha256", NOTED.upper()).code == 0
    assert daemon.requests[-1][2] == {"sha256": NOTED}
    other = gatectl("audit", "verify", "--sha256", "0" * 64)
    assert other.code == 7
    assert other.out.splitlines()[1].startswith("-\tthe noted hash is that of no line\t")
    assert gatectl("audit", "verify", "--sha256", "0" * 64, "-q") == (7, "", "")
    assert_one_line(gatectl("audit", "verify", "--sha256", "12"), 2, "no hash of 64 hexadecimal digits")


def test_a_line_that_differs_is_named(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    detail = "this line is not as it was written"
    daemon.state["audit_differences"] = [{"id": 2, "expected": "a", "found": "b", "detail": detail}]
    ended = gatectl("audit", "verify")
    assert (ended.code, ended.out.splitlines()[1]) == (7, f"2\t{detail}\ta\tb")
    shown = gatectl.at_terminal("audit", "verify")
    assert shown.code == 7
    assert f"2   {detail}" in shown.plain
    assert "the audit is not what was written" in shown.plain
