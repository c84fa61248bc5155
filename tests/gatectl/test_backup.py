"""`backup` into a file, and `restore` out of it: whole or not at all."""

from __future__ import annotations

import fcntl
import gzip
import os
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from gatectl.backups import restoring
from gatectl.backups.restoring import UNDER_WAY, default_state_dir
from gatewayd import supervisor
from gatewayd.control import backup as made
from gatewayd.settings import default_state_dir as of_gatewayd
from tests.gatectl import fake_backup
from tests.gatectl.conftest import Gatectl, press_until_it_ends
from tests.gatectl.fake_daemon import FakeDaemon
from tests.gatectl.problems import ProblemError
from tests.gatectl.test_failures import assert_one_line

DAMAGED = {
    "no tar": (b"this is no tar", "is no whole backup"),
    "empty": (b"", "is no whole backup"),
    "cut short": (fake_backup.backup()[:4000], "is no whole backup"),
    "hardly begun": (gzip.compress(fake_backup.backup())[:3], "is no whole backup"),
    "cut between files": (fake_backup.backup()[:9728], "it was cut short"),
    "another database": (fake_backup.backup(database=fake_backup.database(4)), "gatewayd.db is not as its manifest"),
    "another segment": (fake_backup.backup(segment=b"GWJ1" + bytes(380)), "000000.gwj is not as its manifest says"),
    "a path that leads out": (fake_backup.tar_of({"../x": b"x"}), "'../x' is in it"),
    "an absolute path": (fake_backup.tar_of({"/etc/x": b"x"}), "'/etc/x' is in it"),
    "a file of zeros without end": (fake_backup.sparse("gatewayd.db", 1 << 60), "'gatewayd.db' is no file"),
    "a name of a name": (fake_backup.long_name(3000), "is no whole backup: maximum recursion"),
    "a manifest alone": (fake_backup.tar_of({"manifest.json": b"{}"}), "its manifest cannot be read"),
    "another form": (fake_backup.tar_of({"manifest.json": b'{"format": 2}'}), "a backup of another form (2)"),
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "backup.tar"
    path.write_bytes(fake_backup.backup())
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder of a gateway that has been stopped."""
    folder = tmp_path / "state"
    (folder / "journal").mkdir(parents=True)
    for name in ("gatewayd.db", "gatewayd.db-wal", "levels", "control.lock", "journal/old.gwj"):
        (folder / name).write_text(f"the old {name}")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tenants(state: Path) -> int:
    with closing(sqlite3.connect(state / "gatewayd.db")) as database:
        return int(database.execute("SELECT count(*) FROM tenant").fetchone()[0])


def test_a_backup_is_private_and_as_it_was_sent(gatectl: Gatectl, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    ended = gatectl("backup", "--out", str(file), "-q")
    assert (ended.code, ended.err) == (0, "")
    assert file.read_bytes() == daemon.backup
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    assert daemon.requests == [("POST", "/v1/backup", {}, None)]


@pytest.mark.usefixtures("daemon")
def test_without_a_name_it_is_named_for_the_time(gatectl: Gatectl, tmp_path: Path) -> None:
    gatectl.cwd = tmp_path
    assert gatectl("backup").code == 0
    [file] = tmp_path.iterdir()
    assert file.name.startswith("gatewayd-20")
    assert file.name.endswith("Z.tar")


def test_compressed_by_its_name(gatectl: Gatectl, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "a.tar.gz"
    assert gatectl("backup", "--out", str(file)).code == 0
    assert gzip.decompress(file.read_bytes()) == daemon.backup
    assert gatectl("restore", str(file), "--state-dir", str(tmp_path / "new")).code == 0
    assert tenants(tmp_path / "new") == 3


def test_into_a_pipe(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    done = subprocess.run(
        gatectl.argv("backup", "--out", "-"), env=gatectl.environment, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, daemon.backup)
    ended = gatectl.at_terminal("backup", "--out", "-")
    assert ended.code == 2
    assert "a backup is nothing for a terminal" in ended.out


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_not_whole_gets_no_name(gatectl: Gatectl, daemon: FakeDaemon, tmp_path: Path, damage: str) -> None:
    daemon.backup, why = DAMAGED[damage]
    file = tmp_path / "a.tar"
    file.write_text("yesterday's")
    assert_one_line(gatectl("backup", "--out", str(file), "-q"), 4, why)
    assert file.read_text() == "yesterday's"
    assert list(tmp_path.iterdir()) == [file]


def test_refusals_and_a_full_disk(gatectl: Gatectl, daemon: FakeDaemon, tmp_path: Path) -> None:
    assert_one_line(gatectl("backup", "--out", "/dev/full", "-q"), 1, "cannot write /dev/full: No space left on device")
    assert_one_line(gatectl("backup", "--out", str(tmp_path / "no" / "a.tar")), 1, "No such file or directory")
    daemon.failing = ProblemError(409, "conflict", "a backup is under way; wait for it to end")
    assert_one_line(gatectl("backup", "--out", str(tmp_path / "a.tar")), 4, "a backup is under way")
    daemon.close()
    assert_one_line(gatectl("backup", "--out", str(tmp_path / "a.tar")), 6, "no gateway at")
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_breaks_off_leaves_what_was_there(gatectl: Gatectl, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_text("yesterday's")
    daemon.breaks_off_after = 3000
    assert_one_line(gatectl("backup", "--out", str(file), "-q"), 6, "in the middle of its answer", "there is no backup")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "yesterday's"


def test_a_backup_that_is_interrupted_leaves_nothing(gatectl: Gatectl, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.waits_after = 3000
    argv = gatectl.argv("backup", "--out", str(tmp_path / "a.tar"))
    process = subprocess.Popen(argv, env=gatectl.environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "gatectl: receiving\n"  # and nothing after it
    press_until_it_ends(process)
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_into_a_new_folder(gatectl: Gatectl, archive: Path, tmp_path: Path) -> None:
    state = tmp_path / "a" / "state"
    ended = gatectl("restore", str(archive), "--state-dir", str(state), "-q", "-o", "json")
    assert (ended.code, ended.err) == (0, "")
    assert tenants(state) == 3
    assert contents(state).keys() == {"gatewayd.db", fake_backup.SEGMENT, "control.lock"}
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in (state, *state.rglob("*")))


def test_through_a_pipe(gatectl: Gatectl, archive: Path, tmp_path: Path) -> None:
    """`ssh far cat gatewayd.tar | gatectl restore /dev/stdin`."""
    command = gatectl.argv("restore", "/dev/stdin", "--state-dir", str(tmp_path / "new"), "-q")
    subprocess.run(command, input=archive.read_bytes(), env=gatectl.environment, check=True, timeout=30)
    assert tenants(tmp_path / "new") == 3


def test_ctrl_c_waits_until_the_swap_is_over(gatectl: Gatectl, archive: Path, state: Path) -> None:
    """Also where a thread draws a bar, to which the system may give the signal."""
    script = """if 1:
        import os, signal, sys, threading, time
        from gatectl import app
        from gatectl.backups import restoring
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        put_aside = restoring._put_aside
        def slowly(state_dir, kept):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            return put_aside(state_dir, kept)
        restoring._put_aside = slowly
        code = app.run(sys.argv[1:])
        os._exit(code)
    """
    arguments = ["restore", str(archive), "--state-dir", str(state), "--force", "-q"]
    command = [*gatectl.argv()[:1], "-c", script, *arguments]
    done = subprocess.run(command, env=gatectl.environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert tenants(state) == 3
    assert not (state / "restore-under-way").exists()
    assert len(list(state.glob("before-restore-*"))) == 1


def test_over_a_state_only_when_told_and_then_it_is_kept(gatectl: Gatectl, archive: Path, state: Path) -> None:
    before = contents(state)
    refused = gatectl("restore", str(archive), "--state-dir", str(state), "-q")
    assert_one_line(refused, 4, "holds the state of a gateway", "--force puts it aside")
    assert contents(state) == before
    assert gatectl("restore", str(archive), "--state-dir", str(state), "--force").code == 0
    assert tenants(state) == 3
    [kept] = state.glob("before-restore-*")
    assert contents(kept) == {name: text for name, text in before.items() if name != "control.lock"}
    after = contents(state).keys() - {str(path.relative_to(state)) for path in kept.rglob("*")}
    assert after == {"gatewayd.db", fake_backup.SEGMENT, "control.lock"}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_backup_changes_nothing(gatectl: Gatectl, archive: Path, state: Path, damage: str) -> None:
    content, why = DAMAGED[damage]
    archive.write_bytes(content)
    before = contents(state)
    assert_one_line(gatectl("restore", str(archive), "--state-dir", str(state), "--force", "-q"), 4, why)
    assert contents(state) == before


def test_a_database_that_is_none(gatectl: Gatectl, archive: Path, tmp_path: Path) -> None:
    """Its digest may be right, and it is damaged all the same."""
    broken = bytearray(fake_backup.database())
    broken[100:200] = bytes(100)
    whole = fake_backup.database
    try:
        fake_backup.database = lambda rows=3: bytes(broken)  # type: ignore[assignment]
        archive.write_bytes(fake_backup.backup())
    finally:
        fake_backup.database = whole
    ended = gatectl("restore", str(archive), "--state-dir", str(tmp_path / "new"), "-q")
    assert_one_line(ended, 4, "the database in it is damaged")
    assert not (tmp_path / "new").exists()


def test_a_dry_run_only_looks_also_beside_a_gateway_that_runs(
    gatectl: Gatectl, archive: Path, state: Path, tmp_path: Path
) -> None:
    before = contents(state)
    with closing(os.fdopen(os.open(state / "control.lock", os.O_RDONLY))) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = gatectl.at_terminal("restore", str(archive), "--state-dir", str(state), "--dry-run")
    assert ended.code == 0
    assert "It is whole. Nothing was done." in ended.out
    assert "with --force" in ended.out
    assert contents(state) == before
    assert gatectl("restore", str(archive), "--state-dir", str(tmp_path / "a" / "b"), "--dry-run").code == 0
    assert not (tmp_path / "a").exists()
    archive.write_bytes(fake_backup.backup()[:4000])
    ended = gatectl("restore", str(archive), "--state-dir", str(state), "--dry-run", "-q")
    assert_one_line(ended, 4, "is no whole backup")


@pytest.mark.parametrize("lock", [".", "control.lock"])
def test_never_under_a_gateway_that_runs(gatectl: Gatectl, archive: Path, state: Path, lock: str) -> None:
    before = contents(state)
    descriptor = os.open(state / lock, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        ended = gatectl("restore", str(archive), "--state-dir", str(state), "--force", "-q")
    finally:
        os.close(descriptor)
    assert_one_line(ended, 4, f"a gateway is running on {state}", "stop it first")
    assert contents(state) == before


def test_one_that_was_broken_off_is_taken_up_again(gatectl: Gatectl, archive: Path, state: Path) -> None:
    (state / UNDER_WAY).touch()
    assert gatectl("restore", str(archive), "--state-dir", str(state)).code == 0
    assert not (state / UNDER_WAY).exists()
    assert tenants(state) == 3


@pytest.mark.parametrize("done", range(9))
def test_killed_at_any_step_what_was_there_stays_together(
    archive: Path, state: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """A database without its write-ahead log, which is in another folder, would be an older one."""
    before = {name: text for name, text in contents(state).items() if name != "control.lock"}
    steps = iter(range(done))

    class KilledError(BaseException):
        pass

    def dying(step: Callable[..., Any]) -> Callable[..., Any]:
        def one_more(path: Path, *arguments: Any, **named: Any) -> Any:
            under_way = path.name == UNDER_WAY or (state / UNDER_WAY).exists()
            if under_way and path.name != "control.lock" and next(steps, None) is None:
                raise KilledError
            return step(path, *arguments, **named)

        return one_more

    with monkeypatch.context() as patch:
        for name in ("rename", "mkdir", "write_text", "unlink"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        with suppress(KilledError):
            restoring.restore(str(archive), state, lambda *_: None, force=True)
    told = restoring.restore(str(archive), state, lambda *_: None, force=done < 1)
    assert tenants(state) == 3
    assert not (state / UNDER_WAY).exists()
    [kept] = state.glob("before-restore-*")
    assert told["kept"] == str(kept)
    assert contents(kept) == before


def test_what_root_restores_is_of_the_folders_owner(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the lock: a gateway of another user could not open it, and would not start."""
    state = tmp_path / "new"
    state.mkdir()
    owner = 4242 if os.geteuid() == 0 else os.geteuid()
    os.chown(state, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    restoring.restore(str(archive), state, lambda *_: None, force=False)
    assert {path.name: path.stat().st_uid for path in state.rglob("*")} == dict.fromkeys(
        ("gatewayd.db", "journal", Path(fake_backup.SEGMENT).name, "control.lock"), owner
    )


def test_no_file_and_no_permission(gatectl: Gatectl, archive: Path, tmp_path: Path) -> None:
    there = str(tmp_path / "state")
    assert_one_line(gatectl("restore", str(tmp_path / "no.tar"), "--state-dir", there), 1, "No such file or directory")
    (tmp_path / "file").touch()
    assert_one_line(gatectl("restore", str(archive), "--state-dir", str(tmp_path / "file")), 1, "cannot restore into")
    assert not (tmp_path / "state").exists()


def test_both_programs_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert UNDER_WAY == supervisor.RESTORE_UNDER_WAY
    assert made.FORMAT == 1
    for environment in ({}, {"STATE_DIRECTORY": "/s/a:/s/b"}, {"XDG_STATE_HOME": "/state"}):
        for uid in (0, 1000):
            for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
                monkeypatch.delenv(name, raising=False)
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
            assert default_state_dir() == str(of_gatewayd())
