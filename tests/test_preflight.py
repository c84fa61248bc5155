"""`gatewayd check` says all at once what a start would say one by one; `gatewayd unit` is a unit that systemd takes."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gatewayd.cli import main
from gatewayd.control.database import HEAD, Database
from gatewayd.preflight import problems
from gatewayd.settings import load, split_address
from gatewayd.supervisor import RESTORE_UNDER_WAY
from gatewayd.unit import unit

HARDENED = {"DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "Type=notify", "UMask=0077"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def gatewayd(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With state and socket in the folder, unless others are named."""
    here = ["--listen", "127.0.0.1:0", "--state-dir", str(folder / "state"), "--admin-socket", str(folder / "a.sock")]
    argv = [sys.executable, "-m", "gatewayd", *here, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def found(folder: Path, **flags: str) -> list[str]:
    given = {"listen": "127.0.0.1:0", "state_dir": str(folder / "state"), "admin_socket": str(folder / "a.sock")}
    return problems(load(given | flags))


def test_nothing_is_wrong_and_nothing_is_made(folder: Path) -> None:
    run = gatewayd(folder, "check")
    assert (run.returncode, run.stderr) == (0, "")
    assert f"state_dir = {folder}/state\n" in run.stdout
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("check --config x", "settings stand before the command; did you mean 'gatewayd --config ... check'?"),
        ("check --frob", "no such option: --frob; see gatewayd check --help"),
        ("--lisen x", "no such option: --lisen; did you mean '--listen'?"),
        ("chek", "no such command 'chek'; did you mean 'check'?"),
        ("journal", "missing argument 'FILE...'; see gatewayd journal --help"),
    ],
)
def test_a_command_line_that_is_wrong_is_one_line_with_what_to_type(
    line: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gatewayd", *line.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (2, f"gatewayd: {said}\n")


def test_what_cannot_be_looked_at(folder: Path) -> None:
    """As in a folder that this user may not enter; root may, so by a name that is too long."""
    name = "x" * 300
    run = gatewayd(folder, "--state-dir", f"{folder}/{name}", "check")
    assert run.returncode == 1
    assert all(line.count("cannot be looked at: file name too long") == 1 for line in run.stderr.splitlines())


def test_all_of_it_is_told_at_once(folder: Path) -> None:
    (folder / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        elsewhere = ("--state-dir", f"{folder}/file/state", "--admin-socket", f"{folder}/file/a.sock")
        run = gatewayd(folder, "--listen", f"127.0.0.1:{port}", *elsewhere, "check")
    lines = run.stderr.splitlines()
    assert run.returncode == 1
    assert [line.count("file is no folder") for line in lines] == [1, 1, 1, 0]
    assert (
        lines[-1]
        == f"gatewayd: cannot listen on 127.0.0.1:{port}: address already in use; choose another with --listen"
    )


def _open_to_others(state: Path) -> None:
    state.chmod(0o755)


def _half_restored(state: Path) -> None:
    (state / RESTORE_UNDER_WAY).touch()


def _of_the_future(state: Path) -> None:
    Database.open(state).close()
    with closing(sqlite3.connect(state / "gatewayd.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()


def _no_database(state: Path) -> None:
    (state / "gatewayd.db").write_text("nothing of the kind")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_open_to_others, "is open to others; chmod 700"),
        (_half_restored, "broken off in the middle; run 'gatectl restore' again"),
        (_of_the_future, f"was written by a newer gatewayd (schema 9999, this one knows up to {HEAD})"),
        (_no_database, "cannot be read: file is not a database"),
    ],
)
def test_of_the_state(folder: Path, spoil: Callable[[Path], None], said: str) -> None:
    state = folder / "state"
    state.mkdir(mode=0o700)
    assert found(folder) == []
    spoil(state)
    [line] = found(folder)
    assert said in line


def test_a_disk_that_is_full_and_a_file_where_the_socket_should_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.sock").touch()
    assert found(folder) == [f"{folder}/a.sock is no socket, and in the way of one (admin_socket)"]
    (folder / "a.sock").unlink()
    disk = os.statvfs("/")
    full = os.statvfs_result((disk.f_bsize, disk.f_frsize, disk.f_blocks, 0, 0, *disk[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert found(folder) == [f"the disk of {folder}/state has 0 MiB free; journals and database need more"]


def test_the_port_of_a_running_gateway_is_its_own(folder: Path) -> None:
    (folder / "state").mkdir(mode=0o700)
    descriptor = os.open(folder / "state", os.O_RDONLY)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert len(found(folder, listen=address)) == 1
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert found(folder, listen=address) == []
    os.close(descriptor)


def unit_of(config: Path | None = None, **flags: str) -> list[str]:
    return unit(load(flags), flags, config).splitlines()


def test_a_unit_says_what_was_typed() -> None:
    lines = unit_of(listen="0.0.0.0:8080", workers="3")
    assert set(lines) > HARDENED | {"CapabilityBoundingSet=", "TimeoutStopSec=45"}
    [command] = [line for line in lines if line.startswith("ExecStart=")]
    assert command.endswith("--listen 0.0.0.0:8080 --workers 3 --admin-socket /run/gatewayd/admin.sock")
    assert not any("ReadWritePaths" in line for line in lines)


def test_what_it_needs_beyond_that_it_gets(tmp_path: Path) -> None:
    config = tmp_path / "with space.toml"
    config.write_text("workers = 2")
    lines = unit_of(config, listen="[::]:443", state_dir="/srv/100% $mine", admin_socket="/srv/run/a.sock")
    assert split_address("[::]:443")[1] == 443
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in lines
    assert "ReadWritePaths='/srv/100%% $$mine'" in lines
    assert "ReadWritePaths=/srv/run" in lines
    [command] = [line for line in lines if line.startswith("ExecStart=")]
    assert f"--config '{config}'" in command
    assert "--state-dir '/srv/100%% $$mine'" in command


def test_of_the_command_line(tmp_path: Path) -> None:
    run = gatewayd(tmp_path, "--proxy-protocol", "unit")
    assert run.returncode == 0
    assert " --proxy-protocol" in run.stdout
    assert list(tmp_path.iterdir()) == []
    verify = shutil.which("systemd-analyze")
    if verify is not None:  # there is no other that could say
        file = tmp_path / "gatewayd.service"
        file.write_text(run.stdout)
        file.chmod(0o644)  # whatever the umask is
        done = subprocess.run([verify, "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=60)
        about_ours = [line for line in done.stderr.splitlines() if file.name in line]
        assert about_ours == []  # of the machine's own units it may complain
