"""Every command of the grammar in every kind of trouble: one line, the exit code of SPEC 5, nothing half done."""

from __future__ import annotations

import json
import os
import shlex
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.gatectl import fake_backup, test_golden
from tests.gatectl.conftest import Ended, Gatectl
from tests.gatectl.fake_daemon import SECRET, FakeDaemon
from tests.gatectl.front import Front
from tests.gatectl.many import Line, run_all
from tests.gatectl.problems import ProblemError
from tests.gatectl.terminals import WITHIN_S, on_terminal
from tests.gatectl.test_config import GATEWAY
from tests.reference.walk import Command, walked

# What needs no gateway, and so cannot miss one.
ALONE = {
    **{f"context {verb}": "a file of its user's" for verb in ["add", "list", "show", "use", "set", "rename", "remove"]},
    **{f"completion {verb}": "a script that is in the package" for verb in ["bash", "zsh", "fish", "install"]},
    "restore": "files: the gateway is stopped",
    "version": "tells its own all the same, and on stderr why there is no other",
}
# Where the first example does not do: what else is typed.
TYPED = {
    "context check": Line(["context", "check"]),
    "key verify": Line(["key", "verify"], SECRET),
    "billing invoice export": Line(shlex.split("billing invoice export INV-000001")),
    "token create": Line(shlex.split("token create laptop --role operator")),
    "usage export": Line(shlex.split("usage export")),
    "config dump": Line(shlex.split("config dump")),
}


def commands() -> Iterator[Command]:
    return (command for command in walked().all() if not command.verbs)


def name_of(command: Command) -> str:
    return " ".join(command.path[1:])


def line_of(command: Command) -> Line:
    """Its least: what its first example has."""
    return TYPED.get(name_of(command)) or Line(shlex.split(command.examples[0])[1:])


ASKING = {name_of(command): line_of(command) for command in commands() if name_of(command) not in ALONE}


def test_the_exceptions_are_commands() -> None:
    assert ALONE.keys() | TYPED.keys() | ASKING.keys() == {name_of(command) for command in commands()}


@pytest.fixture
def place(folder: Path, gatectl: Gatectl) -> Path:
    """A folder with the files that the examples name, which is its user's home too."""
    gatectl.environment |= {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    (folder / "gateway.yaml").write_text(Path(GATEWAY).read_text())
    (folder / "keys.csv").write_text("name,secret\nci,0123456789abcdef0123456789abcdef\n")
    (folder / "backup.tar").write_bytes(fake_backup.backup())
    folder.chmod(0o777)
    return folder


@contextmanager
def saying(path: Path, answer: bytes) -> Iterator[None]:
    """Something that listens and is no gateway: it says the same to all, and hangs up."""

    class Saying(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.connection.settimeout(10)
            self.connection.recv(65536)
            self.wfile.write(answer)

    with socketserver.ThreadingUnixStreamServer(str(path), Saying) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def wrong(ended: Ended, code: int, *parts: str) -> bool:
    """Whether it is anything but one line on stderr, with that in it, and that exit code."""
    one_line = ended.err.startswith("gatectl: ") and ended.err.endswith("\n") and ended.err.count("\n") == 1
    return (ended.code, ended.out, one_line) != (code, "", True) or not all(part in ended.err for part in parts)


def ended(gatectl: Gatectl, place: Path, user: int | None = None) -> dict[str, Ended]:
    """How each ends."""
    told = run_all(list(ASKING.values()), place, gatectl.environment, user)
    return dict(zip(ASKING, (Ended(*each) for each in told), strict=True))


def check(found: dict[str, Ended], code: int, *parts: str) -> None:
    """Nothing on stdout and one line on stderr, with these parts in it."""
    assert {name: each for name, each in found.items() if wrong(each, code, *parts)} == {}


def test_daemon_down(gatectl: Gatectl, place: Path) -> None:
    check(ended(gatectl, place), 6, f"no gateway at {place}/admin.sock", "start")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_socket(gatectl: Gatectl, place: Path, kind: str) -> None:
    path = place / "admin.sock"
    path.mkdir() if kind == "folder" else path.write_text("")
    check(ended(gatectl, place), 6, str(path), "--socket")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="no HTTP"),
        pytest.param(b'HTTP/1.1 404 Not Found\r\nContent-Length: 29\r\n\r\n{"message":"page not found"}\n', id="other"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", id="page"),
    ],
)
def test_what_is_no_gateway(gatectl: Gatectl, place: Path, answer: bytes) -> None:
    with saying(place / "admin.sock", answer):
        found = ended(gatectl, place)
    if answer.startswith(b"HTTP/"):
        del found["api"]  # the raw door passes on what is answered, whatever that is
    check(found, 6, f"{place}/admin.sock is no gateway", "--socket")


def test_no_permission_on_the_socket(gatectl: Gatectl, place: Path, daemon: FakeDaemon) -> None:
    """For root too, who may everything: it is done as nobody."""
    daemon.path.chmod(0)
    nobody = 65534 if os.geteuid() == 0 else None
    check(ended(gatectl, place, nobody), 5, "no permission to use", "socket's group")
    assert daemon.requests == []


# These have nothing to say where nobody looks.
SILENT = {f"{noun} remove" for noun in ("service", "route", "plan", "client", "alert", "tenant")}
SILENT |= {"key revoke", "token revoke", "config validate"}
PROGRESS = ("gatectl: receiving\n", "gatectl: checking\n", "gatectl: exporting\n")
PROBLEMS = {
    "not_permitted": ProblemError(403, "not_permitted", "that takes the role operator, and yours is viewer"),
    "unauthenticated": ProblemError(401, "unauthenticated", "the token has expired"),
}


def without_door(found: dict[str, Ended]) -> dict[str, Ended]:
    """The raw door writes the problem itself to stdout, and is as clear on stderr."""
    body = found["api"].out
    assert json.loads(body)["code"] in PROBLEMS
    return found | {"api": found["api"]._replace(out="")}


def test_no_permission_at_the_gateway(gatectl: Gatectl, place: Path, daemon: FakeDaemon) -> None:
    daemon.failing = PROBLEMS["not_permitted"]
    check(without_door(ended(gatectl, place)), 5, "takes the role operator", "as the user of gatewayd")


def test_an_expired_token(gatectl: Gatectl, place: Path, daemon: FakeDaemon) -> None:
    daemon.failing = PROBLEMS["unauthenticated"]
    front = Front(daemon.path)
    gatectl.environment |= {"GATECTL_URL": front.url, "GATECTL_TOKEN": "gwt_ab12cd34_of-last-year"}
    found = without_door(ended(gatectl, place))
    front.close()
    # Who is about to change something elsewhere is told where: that line comes before anything is asked.
    before = f"gatectl: on {front.url}\n"
    assert any(each.err.startswith(before) for each in found.values())
    found = {name: each._replace(err=each.err.removeprefix(before)) for name, each in found.items()}
    check(found, 5, "the token has expired", "gatectl token create", "GATECTL_TOKEN")
    assert not any("of-last-year" in each.err for each in found.values())


# As the golden files have them: of what the examples name, a fake gateway knows not all, and some is there already.
ANSWERED = {
    **{
        name: Line(shlex.split(line))
        for line in reversed(test_golden.COMMANDS)
        for name in ASKING
        if f"{line} ".startswith(f"{name} ")
    },
    **{name: ASKING[name] for name in ("context check", "key verify", "key import", "usage export", "usage tail")},
    "config edit": ASKING["config edit"],
    "billing invoice export": ASKING["billing invoice export"],
}
# What came once and could not be written is not left behind: nobody would ever know its secret.
UNDONE = {
    "key create": "the new key gw_nw22pq33 was revoked again",
    "key rotate": "the new secret of gw_ab12cd34 is lost, the old one works until",
    "token create": "the new token ci was revoked again",
    "alert add": "was removed again",
}


def test_a_full_disk(gatectl: Gatectl, place: Path, daemon: FakeDaemon) -> None:
    """What was done is done; that it could not be told is the failure."""
    lines = {name: ANSWERED[name]._replace(stdout="/dev/full") for name in ASKING}
    gatectl.environment["EDITOR"] = "true"
    told = run_all(list(lines.values()), place, gatectl.environment)
    found = dict(zip(lines, (Ended(*each) for each in told), strict=True))
    for name, said in UNDONE.items():
        assert said in found[name].err
    for line in PROGRESS:
        found = {name: each._replace(err=each.err.replace(line, "")) for name, each in found.items()}
    check({name: each for name, each in found.items() if name not in SILENT}, 1, "No space left on device")
    assert {name: each for name, each in found.items() if each == (0, "", "")}.keys() == SILENT


# Some do not show a table at all, and `top` has one for each view.
NO_COLUMNS = {"api", "billing invoice export", "config dump", "config show", "top"}


def test_a_column_that_there_is_not(gatectl: Gatectl, place: Path, daemon: FakeDaemon) -> None:
    """Nothing is changed, and then told as a mistake of the command line."""
    lines = {name: line for name, line in ANSWERED.items() if name not in NO_COLUMNS}
    wrong = [line._replace(words=[*line.words, "--columns", "nope"]) for line in lines.values()]
    told = run_all(wrong, place, gatectl.environment | {"EDITOR": "true"})
    check(dict(zip(lines, (Ended(*each) for each in told), strict=True)), 2, "there is no column 'nope'")
    assert daemon.requests == []


def test_what_has_no_id_is_not_done_for_one(gatectl: Gatectl, place: Path, daemon: FakeDaemon) -> None:
    lines = {name: ANSWERED[name] for name in ("backup", "key import", "service drain")}
    told = run_all(
        [line._replace(words=[*line.words, "-o", "id"]) for line in lines.values()], place, gatectl.environment
    )
    check(dict(zip(lines, (Ended(*each) for each in told), strict=True)), 2, "these have no ids")
    assert daemon.requests == []
    told = run_all([line._replace(words=[*line.words, "-q"]) for line in lines.values()], place, gatectl.environment)
    assert told == [(0, "", "")] * 3


def test_nowhere_to_tell_it(gatectl: Gatectl, place: Path, daemon: FakeDaemon) -> None:
    """A closed output is no reason to fall over, nor to write into what is opened next."""
    version, status = ["version"], ["status"]
    backup = ["backup", "--out", "new.tar"]
    lines = [
        Line(["--version"], stdout="/dev/full"),
        Line(["--help"], stdout="/dev/full"),
        Line(["completion", "bash"], stdout="/dev/full"),
        Line(["--version"], stdout=""),
        Line(status, stdout=""),
    ]
    for line, (code, _, err) in zip(lines, run_all(lines, place, gatectl.environment), strict=True):
        assert (code, err.count("\n"), err[:9]) == (1, 1, "gatectl: "), line
    lines = [Line(version, stderr=""), Line(backup, stderr=""), Line(["explain", "ff42db4e2b8f4688"], stderr="")]
    ended = run_all(lines, place, gatectl.environment)
    assert [code for code, _, _ in ended] == [0, 0, 8]
    assert (place / "new.tar").read_bytes() == fake_backup.backup()
    daemon.close()
    lines = [Line(status, stderr="/dev/full"), Line(status, stderr=""), Line(status, stdout="/dev/full", stderr="")]
    assert run_all(lines, place, gatectl.environment) == [(6, "", "")] * 3


class Long(NamedTuple):
    """A long command; where a gateway leaves it waiting, or what it writes before it waits for more."""

    words: str
    holds: str = ""
    waits_after: int | None = None
    shows: str = ""
    says: str = ""  # in one line


LONG = {
    "usage tail": Long("usage tail", waits_after=100, shows="Ctrl-C ends it"),
    "logs -f": Long("logs -f", waits_after=100, shows="Ctrl-C ends it"),
    "top": Long("top", shows="1,284 req/s"),
    "top for programs": Long("top -o ndjson", shows="1284.3"),
    "usage export": Long("usage export --out new", waits_after=100, shows="exporting"),
    "key import": Long(
        "key import keys.csv", holds="/v1/keys/import",
        says="all of the keys are imported or none: 'gatectl audit list --action key.import' tells",
    ),
    "config apply": Long(
        "config apply -f gateway.yaml --yes -q", holds="/v1/config/apply?base",
        says="the change may or may not have been made: 'gatectl config history' tells",
    ),
    "config diff": Long("config diff -f gateway.yaml", holds="/v1/config/diff"),
    "backup": Long("backup --out new", waits_after=100, shows="receiving"),
    "restore": Long("restore pipe --state-dir new", shows="unpacking"),
    "api --paginate": Long("api /v1/services --paginate", holds="/v1/services"),
    "billing invoice export": Long("billing invoice export INV-000001 --out new", holds="/body"),
    "usage verify": Long("usage verify", holds="/v1/usage/verify"),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_in_the_middle(gatectl: Gatectl, place: Path, daemon: FakeDaemon, name: str) -> None:
    """Typed at the terminal: 130, one line at most, no file left, and the terminal as it was."""
    long = LONG[name]
    daemon.holds = long.holds
    daemon.waits_after = 1 << 30 if long.waits_after is None else long.waits_after
    gatectl.cwd = place
    os.mkfifo(place / "pipe")
    backup = os.open(place / "pipe", os.O_RDWR)
    os.write(backup, fake_backup.backup()[:12000])
    before = sorted(place.rglob("*"))
    with on_terminal(gatectl, *shlex.split(long.words)) as terminal:
        if long.holds or long.waits_after is not None:
            assert daemon.held.wait(WITHIN_S)
        terminal.until(long.shows)
        terminal.type("\x03")
        assert terminal.ended() == 130
        told = terminal.after_ctrl_c
    os.close(backup)
    assert told == [f"gatectl: interrupted; {long.says}"] * bool(long.says)
    assert sorted(place.rglob("*")) == before
