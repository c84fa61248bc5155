"""The secrets of keys: what is asked with them, and where they go."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from gatectl.progress import progress
from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import SECRET, FakeDaemon

pytestmark = pytest.mark.usefixtures("daemon")


def with_input(gatectl: Gatectl, given: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        gatectl.argv(*arguments), env=gatectl.environment, input=given, capture_output=True, text=True, timeout=30
    )


def test_a_key_is_verified_from_stdin(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    good = with_input(gatectl, SECRET + "\n", "key", "verify", "--service", "orders", "--path", "/x", "-o", "json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["valid"] is True
    assert SECRET not in good.stdout
    assert daemon.requests[-1] == ("POST", "/v1/keys/verify", {}, {"key": SECRET, "service": "orders", "path": "/x"})
    bad = with_input(gatectl, "sk_wrong", "key", "verify")
    assert bad.returncode == 8
    assert "invalid_key" in bad.stdout
    assert with_input(gatectl, "sk_wrong", "key", "verify", "-q").stdout == "invalid_key\n"
    assert with_input(gatectl, SECRET, "key", "verify", "-q").stdout == "ok\n"


def test_without_a_key_there_is_nothing_to_verify(gatectl: Gatectl) -> None:
    assert gatectl("key", "verify").code == 2
    assert gatectl("key", "verify", SECRET).code == 2  # never an argument


def test_a_rotation_without_overlap_asks(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    ended = gatectl("key", "rotate", "ci", "--overlap", "0")
    assert ended.code == 2
    assert "cut off" in ended.err
    assert [request[0] for request in daemon.requests] == ["GET"]
    assert gatectl("key", "rotate", "ci").out == SECRET + "\n"
    assert "until 2026-11-28" in gatectl.at_terminal("key", "rotate", "ci").plain


def test_columns_that_would_lose_the_key(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    ended = gatectl("key", "create", "-o", "json", "--columns", "prefix")
    assert (ended.code, ended.out, daemon.requests) == (2, "", [])
    assert "--columns would lose the key, which is shown only once; add key, or --out FILE" in ended.err
    assert json.loads(gatectl("key", "create", "-o", "json", "--columns", "prefix,key").out)["key"] == SECRET


def small_files() -> None:
    """A full disk, as far as a program can tell: every write to a file fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("arguments", "says", "asked"),
    [
        (("key", "create"), "was revoked again", "/v1/keys/key_nw22pq33/revoke"),
        (("key", "rotate", "ci"), "rotate it again", "/v1/keys/ci/rotate"),
    ],
)
def test_a_key_that_cannot_be_written_down_is_not_left_over(
    gatectl: Gatectl, daemon: FakeDaemon, folder: Path, arguments: tuple[str, ...], says: str, asked: str
) -> None:
    ended = subprocess.run(
        gatectl.argv(*arguments, "--out", str(folder / "key")),
        env=gatectl.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=small_files,
    )
    assert ended.returncode == 1
    assert says in ended.stderr
    assert SECRET not in ended.stderr
    assert daemon.requests[-1][1] == asked
    assert not (folder / "key").exists()


def test_keys_are_imported_from_a_file_and_from_stdin(gatectl: Gatectl, daemon: FakeDaemon, folder: Path) -> None:
    file = folder / "keys.csv"
    file.write_text("secret\none\ntwo\n")
    assert json.loads(gatectl("key", "import", str(file), "-o", "json").out) == {
        "tenant": "default", "rows": 2, "imported": 2, "dry_run": False,
    }  # fmt: skip
    dry = with_input(gatectl, "secret\none\n", "key", "import", "-", "--dry-run", "-t", "acme", "-o", "json")
    assert json.loads(dry.stdout)["imported"] == 0
    posted = [request for request in daemon.requests if request[0] == "POST"]
    assert [(query, body) for _, _, query, body in posted] == [
        ({}, "secret\none\ntwo\n"), ({"tenant": "acme", "dry_run": "true"}, "secret\none\n"),
    ]  # fmt: skip
    assert "Imported 2 keys." in gatectl.at_terminal("key", "import", str(file)).plain
    file.write_text("secret\none\n")
    assert "1 key would be imported." in gatectl.at_terminal("key", "import", str(file), "--dry-run").plain


def test_a_bad_line_of_an_import_is_named(gatectl: Gatectl, folder: Path) -> None:
    file = folder / "keys.csv"
    file.write_text("secret\none\nshort\n")
    ended = gatectl("key", "import", str(file))
    assert ended.code == 4
    assert "line 3" in ended.err
    assert gatectl("key", "import", str(folder / "none.csv")).code == 1


def test_progress_is_told_in_lines_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=False) as shown:
        shown.show("reading", 1, 4, 1000)
        shown.show("reading", 2, 4, 2000)  # at once again: not worth a line
        shown.show("storing", 1000, 4000, 4000)
    with progress(quiet=True) as shown:
        shown.show("reading", 1, 4, 1000)
    assert capsys.readouterr().err == "gatectl: reading 25 %, 1,000 rows\ngatectl: storing 25 %, 4,000 rows\n"
