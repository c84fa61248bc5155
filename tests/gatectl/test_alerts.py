"""Alerts from the command line: what is asked, where the secret goes, and what a doctor's exit code says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_alerts import SIGNING_SECRET
from tests.gatectl.fake_daemon import FakeDaemon

pytestmark = pytest.mark.usefixtures("daemon")

URL = "https://ops.example.com/hooks"


def test_into_a_pipe_goes_the_secret_alone(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("alert", "add", "--quota", "80", "--url", URL).out == SIGNING_SECRET + "\n"
    assert daemon.requests[-1] == ("POST", "/v1/alerts", {}, {"url": URL, "quota": 80})
    assert gatectl("alert", "add", "--spend", "99.5", "--key", "ci", "--url", URL).code == 0
    assert daemon.requests[-1][3] == {"url": URL, "spend": "99.5", "key": "ci"}
    assert gatectl("alert", "add", "--refusals", "100/min", "--url", URL).code == 0
    assert daemon.requests[-1][3] == {"url": URL, "refusals": "100/min"}


def test_the_secret_may_go_to_a_file(gatectl: Gatectl, folder: Path) -> None:
    out = folder / "secret"
    ended = gatectl("alert", "add", "--quota", "80", "--url", URL, "--out", str(out), "-o", "json")
    assert SIGNING_SECRET not in ended.out + ended.err
    assert json.loads(ended.out)["id"] == "alr_nw22pq33"
    assert out.read_text() == SIGNING_SECRET + "\n"
    assert out.stat().st_mode & 0o777 == 0o600
    assert gatectl("alert", "add", "--quota", "80", "--url", URL, "--out", str(out)).code == 2  # it exists


def test_a_secret_of_ones_own_comes_from_stdin_and_not_back(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    done = subprocess.run(
        gatectl.argv("alert", "add", "--quota", "80", "--url", URL, "--secret-stdin"),
        env=gatectl.environment,
        input=SIGNING_SECRET + "\n",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0
    assert daemon.requests[-1][3] == {"url": URL, "quota": 80, "secret": SIGNING_SECRET}
    assert SIGNING_SECRET not in done.stdout + done.stderr
    assert "alr_nw22pq33" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", URL],
        ["--url", URL, "--quota", "80", "--spend", "5"],
        ["--quota", "80"],
        ["--url", URL, "--quota", "80", "-o", "id"],
        ["--url", URL, "--quota", "80", "--secret-stdin"],
        ["--url", URL, "--quota", "80", "--secret-stdin", "--out", "x"],
    ],
)
def test_what_cannot_be_meant_is_asked_of_nobody(gatectl: Gatectl, daemon: FakeDaemon, arguments: list[str]) -> None:
    assert gatectl("alert", "add", *arguments).code == 2
    assert daemon.requests == []


def test_a_test_that_did_not_arrive_fails(gatectl: Gatectl) -> None:
    assert gatectl("alert", "test", "alr_quot2222").code == 0
    ended = gatectl("alert", "test", "alr_rfsl2222")
    assert ended.code == 1
    assert "it answered 410" in ended.out


def test_removal_needs_consent(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("alert", "remove", "alr_quot2222").code == 2
    assert (
        gatectl("alert", "rm", "alr_quot2222", "--dry-run").out
        == "would remove alert alr_quot2222 (80% of the quota)\n"
    )
    assert len(daemon.state["alerts"]) == 3
    assert gatectl("alerts", "remove", "alr_quot2222", "--yes").code == 0
    assert len(daemon.state["alerts"]) == 2


def test_the_doctor_exits_with_9_unless_all_is_well(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("doctor").code == 9
    daemon.state["doctor"] = {"state": "ok", "checks": [], "past": {"torn": 0, "lost": 0, "damaged": []}}
    assert gatectl("doctor").code == 0


def test_the_doctor_acknowledges_what_it_has_shown(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["doctor"] = {**daemon.state["doctor"], "past": {"torn": 1, "lost": 0, "damaged": ["ab-1.damaged"]}}
    assert gatectl("doctor").code == 9
    assert [each[0] for each in daemon.requests] == ["GET"], "it looks, and changes nothing"
    assert gatectl("doctor", "--acknowledge").code == 9, "the disk is as it was"
    asked: tuple[str, str, dict[str, str], Any] = (
        "POST",
        "/v1/doctor/acknowledge",
        {},
        {"torn": 1, "damaged": ["ab-1.damaged"]},
    )
    assert daemon.requests[-1] == asked
    ended = gatectl("doctor", "--acknowledge", "-o", "json")
    assert json.loads(ended.out)["past"] == {"torn": 0, "lost": 0, "damaged": []}
    assert daemon.requests[-1][0] == "GET", "there was nothing left"


def test_the_doctor_has_no_ids_and_says_so_before_it_acknowledges(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    ended = gatectl("doctor", "--acknowledge", "-o", "id")
    assert (ended.code, ended.err) == (2, "gatectl: these have no ids; leave out -o id and -q\n")
    assert daemon.requests == []
    ended = gatectl("doctor", "--acknowledge", "-q")  # as of others that have none: the exit code alone
    assert (ended.code, ended.out, ended.err) == (9, "", "")
    assert daemon.requests[-1][0] == "POST"
