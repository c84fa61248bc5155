"""Bad input is one line that says what to do, with the right exit code, and leaves nothing half-done."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House
from tests.daemons import ROOT


def gatewayd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, which must come: whoever reads this far has given it no reason to start."""
    return subprocess.run(
        [sys.executable, "-m", "gatewayd", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def in_folder(folder: Path, listen: str = "127.0.0.1:0") -> list[str]:
    return ["--listen", listen, "--state-dir", str(folder / "state"), "--admin-socket", str(folder / "admin.sock")]


def assert_one_line(run: subprocess.CompletedProcess[str], *said: str, code: int = 1) -> None:
    assert run.returncode == code, run
    assert run.stdout == ""
    [line] = run.stderr.splitlines()
    assert line.startswith("gatewayd: ")
    assert not [part for part in said if part not in line], line


# The daemon's start.


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = gatewayd(*in_folder(tmp_path, f"127.0.0.1:{port}"))
    assert_one_line(run, f"127.0.0.1:{port}", "address already in use", "--listen")
    assert not (tmp_path / "admin.sock").exists()
    assert not list(tmp_path.glob("state/*.sock"))


def test_a_port_of_another_gatewayd(house: House, tmp_path: Path) -> None:
    run = gatewayd(*in_folder(tmp_path, f"127.0.0.1:{house.address[1]}"))
    assert_one_line(run, "address already in use")


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = gatewayd("--state-dir", str(tmp_path / "file" / "state"), "--admin-socket", str(tmp_path / "admin.sock"))
    assert_one_line(run, str(tmp_path / "file" / "state"), "--state-dir")
    assert not (tmp_path / "admin.sock").exists()


def test_an_admin_socket_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "admin.sock", tmp_path / "folder"):
        run = gatewayd("--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "state"), "--admin-socket", str(path))
        assert_one_line(run, str(path.parent))
    assert (tmp_path / "folder").is_dir()
    assert (tmp_path / "file").read_text() == ""


def test_an_admin_socket_in_use_is_left_to_its_owner(house: House, tmp_path: Path) -> None:
    run = gatewayd(
        "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "state"), "--admin-socket", str(house.socket)
    )
    assert_one_line(run, str(house.socket), "--admin-socket")
    assert house.gatectl.run("status").returncode == 0


def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    precious = tmp_path / "admin.sock"
    precious.write_text("precious")
    assert_one_line(gatewayd(*in_folder(tmp_path)), str(precious))
    assert precious.read_text() == "precious"


def test_a_database_from_a_newer_version(new_house: NewHouse) -> None:
    house = new_house(workers=1)
    house.stop()
    database = house.state_dir / "gatewayd.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before, segments = database.read_bytes(), sorted(house.state_dir.glob("journal/*"))
    run = gatewayd(*in_folder(house.folder))
    assert_one_line(run, str(database), "newer", "9999")
    assert database.read_bytes() == before
    assert not house.socket.exists()
    assert not list(house.state_dir.glob("*.sock"))
    assert sorted(house.state_dir.glob("journal/*")) == segments  # no worker was told to begin one


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    database = tmp_path / "state" / "gatewayd.db"
    database.write_bytes(b"this is not a database, it is a letter\n" * 200)
    before = database.read_bytes()
    assert_one_line(gatewayd(*in_folder(tmp_path)), str(database), "not a database")
    assert database.read_bytes() == before


def test_a_database_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    database = tmp_path / "state" / "gatewayd.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE letters (text)")
    connection.close()
    assert_one_line(gatewayd(*in_folder(tmp_path)), str(database), "not gatewayd's", "--state-dir")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"GATEWAYD_WORKERS": "many"}, "workers"),
        ({"GATEWAYD_WORKERS": "0"}, "workers"),
        ({"GATEWAYD_LISTEN": "8080"}, "HOST:PORT"),
        ({"GATEWAYD_LISTEN": "127.0.0.1:99999"}, "99999"),
        ({"GATEWAYD_LISTEN": "no.such.host.invalid:8080"}, "no.such.host.invalid"),
        ({"GATEWAYD_ON_FULL": "panic"}, "on_full"),
        ({"GATEWAYD_JOURNAL_SYNC": "always"}, "journal_sync"),
        ({"GATEWAYD_JOURNAL_LIMIT_BYTES": "50000000", "GATEWAYD_WORKERS": "3"}, "at least 50331648"),
        ({"GATEWAYD_ADMIN_SOCKET": "/tmp/" + "x" * 200}, "107"),
    ],
)
def test_malformed_environment(environment: dict[str, str], said: str, tmp_path: Path) -> None:
    folder = {"GATEWAYD_STATE_DIR": str(tmp_path / "state"), "GATEWAYD_ADMIN_SOCKET": str(tmp_path / "admin.sock")}
    assert_one_line(gatewayd(**folder | environment), said)
    assert not (tmp_path / "admin.sock").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers = ", "gatewayd.toml"),
        ("workers = 'two'", "workers"),
        ("wrokers = 2", "wrokers"),
        ("[drain_timeout_s]\nshort = 1", "drain_timeout_s"),
        ("\xff", "gatewayd.toml"),
    ],
)
def test_a_malformed_settings_file(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "gatewayd.toml"
    file.write_text(text, encoding="latin-1")
    assert_one_line(gatewayd(*in_folder(tmp_path), "--config", str(file)), said)
    assert not (tmp_path / "state").exists()


def test_malformed_flags(tmp_path: Path) -> None:
    assert_one_line(gatewayd(*in_folder(tmp_path, "nowhere")), "HOST:PORT")
    assert_one_line(gatewayd(*in_folder(tmp_path), "--config", str(tmp_path / "none.toml")), "does not exist")
    assert_one_line(gatewayd(*in_folder(tmp_path), "--workers", "two"), "two", code=2)
    assert_one_line(gatewayd(*in_folder(tmp_path), "--port", "1"), "--port", code=2)
    assert_one_line(gatewayd(*in_folder(tmp_path), "serve"), "serve", code=2)
    assert not (tmp_path / "state").exists()


# What an operator types.


def rows(house: House) -> list[int]:
    with sqlite3.connect(f"file:{house.state_dir}/gatewayd.db?mode=ro", uri=True) as database:
        tables = ("service", "target", "plan", "price", "key", "tenant", "audit")
        counts = [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]
    database.close()
    return counts


@pytest.fixture(scope="module")
def stocked(house: House) -> House:
    house.service("orders")
    house.gatectl.do("plan", "add", "starter", "--rate", "60/min")
    return house


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["key", "create", "--service", "orders", "--plan", "startr"], (3, 4), "starter"),
        (["key", "create", "--service", "ordrs"], (3, 4), "orders"),
        (["key", "create", "--expires", "soon"], (2, 4), "soon"),
        (["key", "create", "--expires", "2001-01-01"], (2, 4), "2001-01-01"),
        (["service", "add", "orders", "http://127.0.0.1:1"], (4,), "orders"),
        (["service", "add", "new", "127.0.0.1:1"], (2, 4), "http://"),
        (["service", "add", "new", "ftp://127.0.0.1"], (2, 4), "http"),
        (["service", "add", "new", "http://"], (2, 4), "http"),
        (["service", "add", "new", "http://127.0.0.1:99999"], (2, 4), "99999"),
        (["service", "add", "new", "http://user:pass@127.0.0.1"], (2, 4), "user"),
        (["service", "add", "New Name", "http://127.0.0.1:1"], (2, 4), "New Name"),
        (["service", "add", "proxy", "http://127.0.0.1:1"], (4,), "proxy"),
        (["service", "add", "new", "http://127.0.0.1:1", "--path", "v1"], (2, 4), "/"),
        (["service", "add", "new", "http://127.0.0.1:1", "--path", "/orders"], (4,), "orders"),
        (["service", "add", "new", "http://127.0.0.1:1", "--timeout", "quick"], (2, 4), "quick"),
        (["service", "add", "new", "http://127.0.0.1:1", "--body-limit", "-1"], (2, 4), "-1"),
        (["plan", "add", "starter"], (4,), "starter"),
        (["plan", "add", "new", "--rate", "60"], (2, 4), "60/min"),
        (["plan", "add", "new", "--rate", "60/fortnight"], (2, 4), "fortnight"),
        (["plan", "add", "new", "--rate", "0/min"], (2, 4), "0"),
        (["plan", "add", "new", "--price", "cheap"], (2, 4), "cheap"),
        (["plan", "add", "new", "--price", "0.0000000001"], (2, 4), "0.0000000001"),
        (["plan", "add", "new", "--price", "-1"], (2, 4), "-1"),
        (["plan", "add", "new", "--quota", "5/week"], (2, 4), "week"),
        (["plan", "remove", "starter"], (2,), "--yes"),
        (["service", "show", "ordes"], (3,), "orders"),
        (["usage", "show", "--since", "1 fortnight ago"], (2, 4), "fortnight"),
        (["billing", "show", "--period", "2026-13"], (2, 4), "2026-13"),
        (["key", "list", "-t", "nobody"], (3,), "nobody"),
        (["sevice", "list"], (2,), "service"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_is_wrong(stocked: House, command: list[str], code: tuple[int, ...], said: str) -> None:
    before = rows(stocked)
    run = stocked.gatectl.run(*command)
    assert run.returncode in code, run
    assert run.stdout == ""
    [line] = run.stderr.splitlines()
    assert said in line
    assert rows(stocked) == before


def test_a_socket_that_is_not_there(tmp_path: Path, stocked: House) -> None:
    run = stocked.gatectl.run("status", "--socket", str(tmp_path / "none.sock"))
    assert (run.returncode, run.stdout) == (6, "")
    [line] = run.stderr.splitlines()
    assert str(tmp_path / "none.sock") in line


def test_a_whole_key_given_by_mistake_goes_nowhere(stocked: House) -> None:
    key = stocked.key()
    run = stocked.gatectl.run("key", "show", key)
    assert key[12:] not in run.stdout + run.stderr + stocked.gateway.daemon.output()
