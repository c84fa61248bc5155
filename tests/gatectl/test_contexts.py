"""Contexts: gateways under names, in a file that nobody else can read."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatectl import contexts
from gatectl.errors import GatectlError
from tests.gatectl.conftest import Ended, Gatectl
from tests.gatectl.fake_daemon import FakeDaemon
from tests.gatectl.front import Front
from tests.gatectl.test_failures import answering, assert_one_line
from tests.gatectl.test_keys import small_files

TOKEN = "gwt_ab12cd34_" + "x" * 43
URL = "https://gw.example:8443"


@pytest.fixture
def gatectl(gatectl: Gatectl, folder: Path) -> Gatectl:
    """With a configuration of its own, and no socket named."""
    gatectl.environment |= {"XDG_CONFIG_HOME": str(folder / "config")}
    del gatectl.environment["GATECTL_SOCKET"]
    return gatectl


@pytest.fixture
def front(daemon: FakeDaemon) -> Iterator[Front]:
    front = Front(daemon.path)
    yield front
    front.close()


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "config" / "gatectl" / "contexts.json"


@pytest.mark.parametrize(
    "words",
    [["key", "set", "verify"], ["key", "set", "import"], ["plan", "set", "simulate"], ["service", "set", "simulate"]],
)
def test_a_name_like_that_of_a_question_is_changed_no_less(gatectl: Gatectl, front: Front, words: list[str]) -> None:
    assert add(gatectl, "prod", "--url", front.url, "--use").code == 0
    option = {"key": ["--name", "x"], "plan": ["--burst", "9"], "service": ["--timeout", "5s"]}[words[0]]
    assert gatectl(*words, *option).err.startswith(f"gatectl: on prod ({front.url})\n")


def add(gatectl: Gatectl, name: str, *arguments: str, token: str = TOKEN) -> Ended:
    done = subprocess.run(
        gatectl.argv("context", "add", name, "--token-stdin", *arguments),
        env=gatectl.environment, input=token + "\n", capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def written(file: Path) -> None:
    """As `add` with `prod` leaves it."""
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"current": "local", "contexts": {"prod": {"url": URL, "token": TOKEN}}}))
    file.chmod(0o600)


def test_a_context_is_kept_where_nobody_else_reads(gatectl: Gatectl, file: Path) -> None:
    assert add(gatectl, "prod", "--url", URL) == (0, "", "")
    assert json.loads(file.read_text()) == {"current": "local", "contexts": {"prod": {"url": URL, "token": TOKEN}}}
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert gatectl("context", "use", "prod").code == 0
    assert file.stat().st_mode & 0o777 == 0o600, "also when it is written again"
    assert [path.name for path in file.parent.iterdir()] == ["contexts.json"]
    for form in ("json", "tsv", "table"):
        for words in (["list"], ["show", "prod"]):
            shown = gatectl("context", *words, "-o", form)
            assert shown.code == 0
            assert "prod" in shown.out
            assert TOKEN not in shown.out


def test_a_context_is_used(gatectl: Gatectl, front: Front, daemon: FakeDaemon) -> None:
    assert add(gatectl, "prod", "--url", front.url, "--use").code == 0
    listed = gatectl("key", "list")
    assert listed.code == 0
    assert listed.err == ""
    assert gatectl("key", "disable", "ci").err == f"gatectl: on prod ({front.url})\n"
    assert front.tokens == [TOKEN] * 3
    listed = gatectl("key", "list")
    assert gatectl("status").out.startswith(f"gateway\tprod ({front.url})\n")
    asked = gatectl.at_terminal("service", "remove", "orders", typed="n\n").plain
    assert "Remove service orders on prod? [y/N]" in asked
    there = gatectl("context", "check", "-o", "json")
    assert json.loads(there.out)["actor"] == "token:laptop"
    assert json.loads(there.out)["gateway"] == f"prod ({front.url})"
    # What is named comes first.
    asked_there = len(front.tokens)
    assert gatectl("key", "list", GATECTL_SOCKET=str(daemon.path)).out == listed.out
    assert len(front.tokens) == asked_there
    assert gatectl("key", "list", "--context", "local", GATECTL_SOCKET=str(daemon.path)).out == listed.out
    assert len(front.tokens) == asked_there
    assert gatectl("context", "use", "local").code == 0
    assert "admin.sock" in gatectl("context", "show").out


def test_a_token_may_come_from_the_environment_alone(gatectl: Gatectl, front: Front, folder: Path) -> None:
    assert gatectl("context", "add", "ci", "--url", front.url).code == 0
    assert gatectl("key", "list", "--context", "ci", GATECTL_TOKEN=TOKEN).code == 0
    assert gatectl("key", "list", GATECTL_CONTEXT="ci", GATECTL_TOKEN="other").code == 0
    assert add(gatectl, "own", "--url", front.url).code == 0
    assert gatectl("key", "list", "--context", "own", GATECTL_TOKEN="other").code == 0
    (folder / "token").write_text("third")
    assert gatectl("key", "list", "--context", "own", "--token-file", str(folder / "token")).code == 0
    assert front.tokens == [TOKEN, "other", TOKEN, "third"]


def test_a_token_of_the_environment_is_for_the_gateway_that_it_names(
    gatectl: Gatectl, front: Front, folder: Path
) -> None:
    for name in ("ci", "lab"):
        assert gatectl("context", "add", name, "--url", front.url).code == 0
    for place in ({"GATECTL_URL": "https://other.example"}, {"GATECTL_CONTEXT": "ci"}):
        for words in (["--url", front.url], ["--context", "lab"]):
            assert gatectl("key", "list", *words, GATECTL_TOKEN=TOKEN, **place).code == 0
    assert front.tokens == []
    for words in (["--url", front.url], []):  # the same one, typed or not
        assert gatectl("key", "list", *words, GATECTL_TOKEN=TOKEN, GATECTL_URL=front.url).code == 0
    assert front.tokens == [TOKEN] * 2
    problem = json.dumps({"status": 401, "code": "unauthenticated", "detail": "no token"}).encode()
    answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (len(problem), problem)
    with answering(folder / "other.sock", answer):
        other = Front(folder / "other.sock")
        ended = gatectl("key", "list", "--url", other.url, GATECTL_TOKEN=TOKEN, GATECTL_URL="https://a")
        other.close()
    assert_one_line(ended, 5, "GATECTL_TOKEN goes with GATECTL_URL alone; give the token of this one with --token-file")


def test_what_to_type_next_is_for_the_same_gateway(gatectl: Gatectl, front: Front) -> None:
    gatectl("context", "add", "prod", "--url", front.url)
    ended = gatectl("service", "show", "zzz", "--context", "prod")
    assert_one_line(ended, 3, "'gatectl service list --context prod' shows what there is")


def test_contexts_change_and_go(gatectl: Gatectl, file: Path, folder: Path) -> None:
    add(gatectl, "prod", "--url", URL, "--use")
    gatectl("context", "add", "lab", "--url", "ssh://ops@lab")
    assert gatectl("context", "rename", "prod", "eu").code == 0
    assert json.loads(file.read_text())["current"] == "eu"
    (folder / "token").write_text("gwt_new")
    assert gatectl("context", "set", "eu", "--token-file", str(folder / "token"), "--url", URL + "/x").code == 0
    assert json.loads(file.read_text())["contexts"]["eu"] == {"url": URL + "/x", "token": "gwt_new"}
    assert gatectl("context", "set", "eu", "--no-token").code == 0
    assert json.loads(file.read_text())["contexts"]["eu"] == {"url": URL + "/x"}
    assert gatectl("context", "list", "-q").out == "local\neu\nlab\n"
    assert_one_line(gatectl("context", "remove", "eu"), 2, "nobody to ask", "--yes")
    assert gatectl("context", "remove", "eu", "--dry-run").out == "would remove context eu\n"
    removed = gatectl("context", "rm", "eu", "--yes")
    assert removed == (0, "", "gatectl: commands are for the local gateway again\n")
    assert json.loads(file.read_text()) == {"current": "local", "contexts": {"lab": {"url": "ssh://ops@lab"}}}


def test_a_socket_is_kept_whole(gatectl: Gatectl, daemon: FakeDaemon, file: Path) -> None:
    done = subprocess.run(
        gatectl.argv("context", "add", "here", "--socket", daemon.path.name), env=gatectl.environment,
        cwd=daemon.path.parent, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(file.read_text())["contexts"]["here"] == {"url": f"unix:{daemon.path}"}
    assert gatectl("key", "disable", "ci", "--context", "here").err == f"gatectl: on here ({daemon.path})\n"


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (("add", "x"), 2, ("a context needs a gateway", "--url https://HOST:PORT")),
        (("add", "local", "--url", URL), 2, ("is the gateway of this machine",)),
        (("add", "a b", "--url", URL), 2, ("cannot be a context's name",)),
        (("add", "prod", "--url", URL), 4, ("exists already", "gatectl context set prod")),
        (("add", "x", "--url", "http://gw.example"), 2, ("http:// would show the token",)),
        (("add", "x", "--url", URL, "--ca", "/none"), 2, ("--ca: there is no file /none",)),
        (("add", "x", "--url", "ssh://gw", "--token-file", "/none"), 2, ("cannot read /none",)),
        (("set", "prod", "--url", "ssh://gw"), 2, ("takes no token", "--no-token where there was one")),
        (("set", "prod"), 2, ("nothing to change",)),
        (("set", "prod", "--token-file", "x", "--no-token"), 2, ("contradict",)),
        (("set", "prdo", "--url", URL), 3, ("no context 'prdo'", "did you mean 'prod'?")),
        (("use", "prdo"), 3, ("did you mean 'prod'?",)),
        (("show", "zzz"), 3, ("'gatectl context list' shows what there is",)),
        (("rename", "prod", "local"), 2, ("is the gateway of this machine",)),
        (("remove", "prod", "zzz", "--yes"), 3, ("no context 'zzz'",)),
        (("delete", "prod"), 2, ("did you mean 'remove'?",)),
        (("inspect", "prod"), 2, ("did you mean 'show'?",)),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    gatectl: Gatectl, file: Path, words: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    written(file)
    before = file.read_bytes()
    assert_one_line(gatectl("context", *words), code, *parts)
    assert file.read_bytes() == before


def test_a_context_that_is_not_there_is_named(gatectl: Gatectl) -> None:
    assert_one_line(gatectl("status", "--context", "zzz"), 3, "no context 'zzz'", "gatectl context list")
    assert_one_line(gatectl("status", GATECTL_CONTEXT="zzz"), 3, "no context 'zzz'")


def test_a_file_that_others_can_read_is_not_used(gatectl: Gatectl, file: Path) -> None:
    written(file)
    file.chmod(0o640)
    for words in (["status"], ["context", "list"], ["status", "--context", "prod"]):
        assert_one_line(gatectl(*words), 1, "holds tokens, and others can read it", f"chmod 600 {file}")
    # What needs no context does not care.
    assert gatectl("status", "--socket", "/none").code == 6
    file.write_text(json.dumps({"contexts": {"prod": {"url": URL}}}))
    assert gatectl("context", "list").code == 0, "without tokens it is no secret"


def test_a_file_that_others_can_write_is_not_used(gatectl: Gatectl, file: Path) -> None:
    """They would say where commands go, and GATECTL_TOKEN."""
    written(file)
    for text in (file.read_text(), json.dumps({"contexts": {"prod": {"url": URL}}})):
        file.write_text(text)
        for mode in (0o620, 0o602):
            file.chmod(mode)
            assert_one_line(gatectl("status", "--context", "prod"), 1, "others can write", f"chmod 600 {file}")


def test_a_file_of_somebody_else_is_not_used(gatectl: Gatectl, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", gatectl.environment["XDG_CONFIG_HOME"])
    written(file)
    owner = file.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:  # as the system's, it may be
        contexts.load()
        os.chown(file, 54321, -1)
    with pytest.raises(GatectlError, match="another user's"):
        contexts.load()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"contexts": []}', '{"contexts": {"a": {}}}', '{"contexts": {"a": {"url": 7}}}']
)
def test_a_damaged_file_is_said(gatectl: Gatectl, file: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", gatectl.environment["XDG_CONFIG_HOME"])
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(GatectlError, match=r"is damaged; mend it, or move it away"):
        contexts.load()
    with pytest.raises(GatectlError, match="is damaged"), contexts.changed():
        pass
    assert file.read_text() == text


def test_a_full_disk_leaves_the_file_as_it_was(gatectl: Gatectl, file: Path) -> None:
    written(file)
    before = file.read_bytes()
    ended = subprocess.run(
        gatectl.argv("context", "add", "lab", "--url", URL), preexec_fn=small_files, capture_output=True, text=True,
        env=gatectl.environment | {"PYTHONDONTWRITEBYTECODE": "1"}, timeout=30,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "nothing was changed" in ended.stderr
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["contexts.json"]


def test_a_link_stays_one(gatectl: Gatectl, file: Path, folder: Path) -> None:
    file.parent.mkdir(parents=True)
    (folder / "kept.json").write_text('{"contexts": {}}')
    file.symlink_to(folder / "kept.json")
    assert gatectl("context", "add", "lab", "--url", URL).code == 0
    assert file.is_symlink()
    assert "lab" in (folder / "kept.json").read_text()


def test_two_terminals_do_not_undo_each_other(gatectl: Gatectl, file: Path) -> None:
    started = [
        subprocess.Popen(gatectl.argv("context", "add", f"gw{number}", "--url", URL), env=gatectl.environment)
        for number in range(4)
    ]
    assert [process.wait(60) for process in started] == [0] * 4
    assert len(json.loads(file.read_text())["contexts"]) == 4


def test_names_for_completion(gatectl: Gatectl, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", gatectl.environment["XDG_CONFIG_HOME"])
    assert contexts.names() == ["local"]
    add(gatectl, "prod", "--url", URL)
    gatectl("context", "add", "lab", "--url", URL)
    assert contexts.names() == ["local", "lab", "prod"]
    file.write_text("{")
    assert contexts.names() == ["local"]


def test_a_context_that_there_is_not_is_not_said_again_in_the_hint(gatectl: Gatectl) -> None:
    ended = gatectl("--context", "nope", "service", "list")
    assert ended == (3, "", "gatectl: there is no context 'nope'; 'gatectl context list' shows what there is\n")
