"""`gatectl config` from outside: files in, lines and exit codes out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gatectl.colours import Colours
from gatectl.config.differences import deed, drawn, removed_tenants
from tests.gatectl.conftest import Ended, Gatectl, press_until_it_ends
from tests.gatectl.fake_daemon import FakeDaemon

HERE = Path(__file__).parent
GATEWAY = str(HERE / "gateway.yaml")


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "gateway.yaml"


def sent(daemon: FakeDaemon, path: str) -> list[tuple[dict[str, str], Any]]:
    """Query and body of each request to `path`."""
    asked = [(query, body) for _, at, query, body in daemon.requests if at == path]
    return [(query, json.loads(body) if isinstance(body, str) else body) for query, body in asked]


def test_a_dump_is_what_differs_in_nothing(daemon: FakeDaemon, gatectl: Gatectl, file: Path) -> None:
    assert gatectl("config", "dump", "-f", str(file)) == Ended(0, "")
    counts = "2 tenants, 3 services, 2 plans, 1 route, 2 keys"
    assert gatectl.at_terminal("config", "dump", "-f", str(file)).plain == f"Wrote {file}: {counts}.\n"
    assert file.read_text() == gatectl("config", "dump").out
    assert gatectl("config", "diff", "-f", str(file), "--prune") == Ended(0, "No differences.\n")
    applied = gatectl("config", "apply", "-f", str(file), "--prune", "--yes")
    assert applied == Ended(0, "Nothing to do: the gateway has it all as it is there.\n")
    assert not sent(daemon, "/v1/config/apply")


def test_the_dump_of_one_tenant_as_json(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    ended = gatectl("config", "dump", "-t", "acme", "-o", "json")
    assert [tenant["slug"] for tenant in json.loads(ended.out)["tenants"]] == ["acme"]
    assert gatectl("config", "dump", "-t", "acme").out.startswith("# Written by: gatectl config dump -t acme\nversion:")


def test_what_is_hidden_from_a_viewer_is_told_to_be_missing(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    hidden = [{"action": "set", "name": "X-Token", "value": "<hidden from viewers>"}]
    daemon.config.document["tenants"][0]["services"][0]["request_headers"] = hidden
    daemon.config.revisions[0]["document"] = daemon.config.document
    told = "gatectl: what is hidden from viewers is not in it, so it cannot be applied\n"
    for words in (("dump",), ("show", str(daemon.config.revisions[0]["number"]))):
        written = gatectl("config", *words)
        assert (written.code, written.err) == (0, told)
        assert written.out.splitlines()[1] == "# What is hidden from viewers is not in it, so it cannot be applied."
        as_json = gatectl("config", *words, "-o", "json")
        assert (as_json.code, as_json.err) == (0, told)
        assert json.loads(as_json.out)
    assert gatectl("config", "dump", "-t", "default").err == ""


def test_a_dump_has_no_other_form(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    ended = gatectl("config", "dump", "-o", "csv")
    assert ended == Ended(2, "", "gatectl: a configuration has no form 'csv'; take one of yaml, json\n")


def test_what_prune_would_remove_is_told_without_it(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    ended = gatectl("config", "diff", "-f", GATEWAY)
    assert ended.code == 7
    assert ended.out.endswith("3 to add, 3 to change, 0 to remove\n")
    assert ended.err == "gatectl: 3 are not in the file; --prune removes them\n"


def test_of_a_file_of_one_tenant_it_is_told_which_prune_that_would_be(
    daemon: FakeDaemon, gatectl: Gatectl, file: Path
) -> None:
    file.write_text("version: 1\ntenants: [{slug: acme, currency: EUR, keys: []}]\n")
    told = "gatectl: 1 is not in the file; --prune -t acme removes it\n"
    assert gatectl("config", "diff", "-f", str(file)) == Ended(0, "No differences.\n", told)


def test_the_answer_as_json_and_as_rows(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    ended = gatectl("config", "diff", "-f", GATEWAY, "--prune", "-o", "json")
    assert (ended.code, json.loads(ended.out)["removed"]) == (7, 3)
    ended = gatectl("config", "diff", "-f", GATEWAY, "--prune", "-o", "csv", "--columns", "change,kind,name")
    assert ended.out.splitlines()[-1] == "remove,service,products"


def test_the_file_goes_out_as_the_admin_api_spells_it(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    gatectl("config", "diff", "-f", GATEWAY)
    _, document = sent(daemon, "/v1/config/diff")[0]
    assert list(document) == ["version", "tenants"]  # without what begins with x-
    plans = document["tenants"][1]["plans"]
    assert plans[0]["quota"] == 20000
    assert plans[1] == {"name": "max", "price": "0.0000005", "base_fee": "20"}
    assert document["tenants"][1]["services"][0]["timeout_s"] == 2.5


@pytest.mark.parametrize("verb", ["diff", "apply", "validate"])
def test_mistakes_have_line_and_column(daemon: FakeDaemon, gatectl: Gatectl, file: Path, verb: str) -> None:
    file.write_bytes((HERE / "mistakes.yaml").read_bytes())
    ended = gatectl("config", verb, "-f", str(file))
    lines = [
        f"{file}:7:9: timeout_s must be a number, not a string",
        f"{file}:8:9: slug is missing",
        f"{file}:9:9: 'tmieout_s' is not known here",
    ]
    hint = "mend them and try again" if verb == "validate" else "nothing was done"
    last = f"gatectl: {file} has 3 mistakes; {hint}\n"
    told = "".join(f"{line}\n" for line in lines)
    assert ended == (Ended(4, told, last) if verb == "validate" else Ended(4, "", told + last))


def test_mistakes_for_programs(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    ended = gatectl("config", "validate", "-f", str(HERE / "mistakes.yaml"), "-o", "json")
    first = json.loads(ended.out)["errors"][0]
    assert (first["line"], first["column"], first["pointer"]) == (7, 9, "/tenants/0/services/0/timeout_s")


def test_a_file_that_is_no_yaml_is_not_sent(daemon: FakeDaemon, gatectl: Gatectl, file: Path) -> None:
    file.write_text("version: 1\ntenants: [\n")
    ended = gatectl("config", "validate", "-f", str(file))
    assert ended.code == 4
    assert ended.out.startswith(f"{file}:3:1: ")
    assert not daemon.requests


@pytest.mark.parametrize("text", ["- version: 1\n", "5\n", "version\n"])
def test_a_file_that_is_something_else(daemon: FakeDaemon, gatectl: Gatectl, file: Path, text: str) -> None:
    file.write_text(text)
    ended = gatectl("config", "validate", "-f", str(file))
    assert ended.out == f"{file}:1:1: is no configuration; it begins with 'version: 1' and 'tenants:'\n"


def test_files_that_cannot_be_read(daemon: FakeDaemon, gatectl: Gatectl, folder: Path) -> None:
    missing, empty = folder / "missing.yaml", folder / "empty"
    empty.mkdir()
    ended = gatectl("config", "diff", "-f", str(missing))
    told = f"gatectl: cannot read {missing}: No such file or directory; name a YAML file, or - for stdin\n"
    assert ended == Ended(1, "", told)
    ended = gatectl("config", "diff", "-f", str(empty))
    told = f"gatectl: {empty} holds no YAML file; name a file, or a folder with some\n"
    assert ended == Ended(2, "", told)
    assert gatectl("config", "diff").code == 2


def test_several_files_are_one(daemon: FakeDaemon, gatectl: Gatectl, folder: Path) -> None:
    """Tenants of one slug are one tenant; what is wrong is told where it was written."""
    (folder / "d").mkdir()
    (folder / "d" / "a.yaml").write_text(
        "version: 1\ntenants:\n- slug: default\n  currency: EUR\n  services: [{slug: a}]\n"
    )
    (folder / "d" / "b.json").write_text(
        '{"version": 1, "tenants": [{"slug": "acme"},\n {"slug": "default", "currency": "EUR",\n'
        '  "services": [{"slug": "b"},\n   {"timeout_s": "x"}], "plans": [{"name": "p"}]}]}'
    )
    (folder / "d" / ".hidden.yaml").write_text("no: [\n")
    ended = gatectl("config", "diff", "-f", str(folder / "d"))
    _, document = sent(daemon, "/v1/config/diff")[0]
    default = {
        "slug": "default",
        "currency": "EUR",
        "services": [{"slug": "a"}, {"slug": "b"}, {"timeout_s": "x"}],
        "plans": [{"name": "p"}],
    }
    assert document == {"version": 1, "tenants": [default, {"slug": "acme"}]}
    assert ended.err.splitlines()[:2] == [
        f"{folder}/d/b.json:4:4: slug is missing",
        f"{folder}/d/b.json:4:5: timeout_s must be a number, not a string",
    ]


def test_files_that_contradict_each_other(daemon: FakeDaemon, gatectl: Gatectl, folder: Path) -> None:
    first, second = folder / "a.yaml", folder / "b.yaml"
    first.write_text("version: 1\ntenants:\n- slug: default\n  currency: EUR\n")
    second.write_text("version: 1\ntenants:\n- slug: default\n  currency: USD\n")
    ended = gatectl("config", "validate", "-f", str(first), "-f", str(second))
    assert ended.out == f"{second}:4:3: currency is something else in {first}\n"
    assert gatectl("config", "validate", "-f", str(first), "-f", str(first)).code == 2


def test_a_file_from_standard_input(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    def run(text: bytes) -> subprocess.CompletedProcess[bytes]:
        argv = gatectl.argv("config", "diff", "-f", "-")
        return subprocess.run(argv, input=text, env=gatectl.environment, capture_output=True, timeout=30)

    assert run(b"version: 1\ntenants: []\n").returncode == 0
    ended = run(b"version: 1\ntenants: [}\n")
    assert ended.stderr.startswith(b"stdin:2:11: ")


def test_an_apply_is_of_what_was_shown(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    base = daemon.config.base
    ended = gatectl("config", "apply", "-f", GATEWAY, "--yes", "-m", "beta opens")
    assert ended.out.endswith(
        "3 to add, 3 to change, 0 to remove\nRevision 4: 3 added, 3 changed, 0 removed.\n"
        "1 key has no secret yet. To get one, shown once:\n    gatectl key rotate beta-web\n"
    )
    query, document = sent(daemon, "/v1/config/apply")[0]
    assert query == {"base": base, "message": "beta opens"}
    assert document == sent(daemon, "/v1/config/diff")[0][1]
    assert gatectl("config", "apply", "-f", GATEWAY, "--yes", "-q").out == ""


def test_the_number_alone_and_all_of_the_answer(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    assert gatectl("config", "apply", "-f", GATEWAY, "--yes", "-q") == Ended(0, "4\n")
    ended = gatectl("config", "rollback", "1", "--yes", "-o", "json")
    assert (ended.code, ended.err, json.loads(ended.out)["revision"]["kind"]) == (0, "", "rollback")
    ended = gatectl("config", "apply", "-f", GATEWAY, "--yes", "-o", "csv")
    assert ended.out.splitlines()[1].startswith("6,2026-11-21T02:00:00Z,root,apply,")


def test_a_configuration_that_changed_meanwhile(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    """The question is answered after somebody else has changed something."""
    daemon.config.change_after_diff = True
    ended = gatectl("config", "apply", "-f", GATEWAY, "--yes", "-t", "default")
    told = f"look again: 'gatectl config diff -f {GATEWAY} -t default'"
    assert ended.code == 4
    assert ended.err == f"gatectl: the configuration has changed since it was compared; {told}\n"


def test_nobody_to_ask(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    ended = gatectl("config", "apply", "-f", GATEWAY, "--prune")
    assert ended.code == 2
    assert ended.err == (
        "gatectl: there is nobody to ask whether to add 3, change 3 and remove route reads, plan pro, "
        "service products; add --yes, or look first with --dry-run\n"
    )
    assert not sent(daemon, "/v1/config/apply")


def test_a_dry_run_is_a_rehearsal(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    before = daemon.config.base
    ended = gatectl("config", "apply", "-f", GATEWAY, "--prune", "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    assert "- service products\n" in ended.out
    assert sent(daemon, "/v1/config/apply")[0][0] == {"prune": "true", "dry_run": "true"}
    assert daemon.config.base == before


def test_at_a_terminal_it_asks_and_names_keys_without_secrets(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    refused = gatectl.at_terminal("config", "apply", "-f", GATEWAY, typed="n\n")
    assert refused.code == 2
    assert refused.plain.endswith("not confirmed, nothing was done\n")
    ended = gatectl.at_terminal("config", "apply", "-f", GATEWAY, typed="y\n")
    assert ended.code == 0
    assert "\x1b[38;5;28m+ plan max\x1b[0m\n" in ended.out
    assert "timeout_s: \x1b[38;5;160m5\x1b[0m -> \x1b[38;5;28m2.5\x1b[0m\n" in ended.out
    assert "3 are not in the file; --prune removes them\nAdd 3 and change 3? [y/N] " in ended.plain
    assert "1 key has no secret yet. To get one, shown once:\n    gatectl key rotate beta-web\n" in ended.plain


def test_colours_are_those_of_the_terminal_and_commands_to_type_are_quoted(
    daemon: FakeDaemon, gatectl: Gatectl, file: Path
) -> None:
    gatectl.environment["TERM"] = "xterm"
    file.write_text("version: 1\ntenants: [{slug: default, default_plan: starter, keys: [{name: it's mine}]}]\n")
    ended = gatectl.at_terminal("config", "apply", "-f", str(file), "--yes")
    assert "\x1b[32m+ key it's mine\x1b[0m\n" in ended.out
    assert "    gatectl key rotate 'it'\"'\"'s mine'\n" in ended.plain
    gatectl.environment["NO_COLOR"] = "1"
    assert "\x1b[" not in gatectl.at_terminal("config", "diff", "-f", GATEWAY).out


def test_what_is_called_otherwise_says_how_it_was_called() -> None:
    """A key that is known by its id."""
    renamed = {"field": "name", "before": "ci", "after": "other"}
    difference = {"kind": "key", "tenant": "default", "name": "other", "change": "set", "fields": [renamed]}
    assert list(drawn([difference], Colours())) == ["~ key other\n", "    name: ci -> other\n"]


def test_keys_that_would_be_revoked_are_named(daemon: FakeDaemon, gatectl: Gatectl, file: Path) -> None:
    file.write_text(
        "version: 1\n"
        "tenants: [{slug: default, default_plan: starter, keys: []}, {slug: acme, currency: EUR, keys: []}]\n"
    )
    ended = gatectl.at_terminal("config", "apply", "-f", str(file), "--prune", typed="y\n")
    assert ended.code == 0
    assert "Revoke keys ci, till in acme? [y/N] " in ended.plain
    assert not daemon.config.document["tenants"][0]["keys"]


def test_a_tenant_is_not_pruned(daemon: FakeDaemon, gatectl: Gatectl, file: Path) -> None:
    file.write_text("version: 1\ntenants: [{slug: default, keys: []}]\n")
    ended = gatectl("config", "apply", "-f", str(file), "--prune", "--yes")
    assert ended.err.startswith(f"{file}:2:1: tenant 'acme' is not in the document, and is not pruned\n")
    assert gatectl("config", "diff", "-f", str(file), "--prune", "-t", "default").code == 7


def removal(kind: str, name: str) -> dict[str, Any]:
    return {"kind": kind, "tenant": "default", "name": name, "change": "remove", "fields": []}


def test_who_would_remove_a_tenant_has_to_type_its_name() -> None:
    gone = [removal("key", str(number)) for number in range(4)] + [removal("tenant", "acme"), removal("tenant", "b")]
    assert deed(gone) == "revoke 4 keys and remove tenants acme, b"
    assert removed_tenants(gone) == "acme,b"
    assert removed_tenants(gone[:4]) is None


def test_of_very_many_differences_the_first_are_shown(daemon: FakeDaemon, gatectl: Gatectl, file: Path) -> None:
    services = "".join(f"  - slug: s{number}\n" for number in range(120))
    head = "version: 1\ntenants:\n- slug: default\n  default_plan: starter\n  services:\n"
    file.write_text(f"{head}{services}  plans: [{{name: z}}]\n")
    ended = gatectl("config", "apply", "-f", str(file), "--yes")
    assert ended.out.count("+ service") == 100
    assert "  and 21 more: 20 services and 1 plan\n121 to add, " in ended.out
    assert gatectl("config", "rollback", "1", "--dry-run").out.count("- service") == 120


def test_of_long_lists_only_what_comes_and_goes_is_told(daemon: FakeDaemon, gatectl: Gatectl, file: Path) -> None:
    targets = [f"http://127.0.0.1:{port}" for port in (8003, 8004, 8005)]
    file.write_text(f"version: 1\ntenants:\n- slug: default\n  services: [{{slug: products, targets: {targets}}}]\n")
    lines = (
        "    targets:\n      - http://127.0.0.1:8002\n      + http://127.0.0.1:8004\n      + http://127.0.0.1:8005\n"
    )
    assert lines in gatectl("config", "diff", "-f", str(file)).out
    file.write_text(file.read_text().replace(str(targets), "[http://127.0.0.1:8003, http://127.0.0.1:8002]"))
    line = "    targets: [http://127.0.0.1:8002, http://127.0.0.1:8003] -> [http://127.0.0.1:8003, http://127.0.0.1:8002]\n"
    assert line in gatectl("config", "diff", "-f", str(file)).out


def test_a_revision_that_cannot_come_back(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    daemon.config.revisions[-1]["document"]["tenants"].pop()
    ended = gatectl("config", "rollback", "1", "--yes")
    assert ended.code == 4
    assert ended.err == (
        "gatectl: revision 1 cannot come back: tenant 'default' is not in the document, and is not pruned; "
        "'gatectl config show 1' tells what it was\n"
    )


def test_names_cannot_write_to_the_terminal(daemon: FakeDaemon, gatectl: Gatectl, file: Path) -> None:
    file.write_text('version: 1\ntenants:\n- slug: default\n  plans: [{name: "a\\e[31m", contact: "b\\e[0m"}]\n')
    ended = gatectl("config", "diff", "-f", str(file))
    assert "+ plan a\\x1b[31m\n    contact: b\\x1b[0m\n" in ended.out


def test_progress_in_lines(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    """While it waits; what says how far it is comes from beside the request."""
    daemon.config.gate.clear()
    process = subprocess.Popen(
        gatectl.argv("config", "apply", "-f", GATEWAY, "--yes"),
        env=gatectl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    first = process.stderr.readline()
    daemon.config.gate.set()
    _, rest = process.communicate(timeout=30)
    assert (process.returncode, first, rest) == (0, "gatectl: storing 25 %, 1 object\n", "")


def test_ctrl_c_while_it_is_under_way_says_that_nobody_knows(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    daemon.config.gate.clear()
    process = subprocess.Popen(
        gatectl.argv("config", "apply", "-f", GATEWAY, "--yes", "-q"),
        env=gatectl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert daemon.config.applying.wait(20)
        press_until_it_ends(process)
        out, err = process.communicate(timeout=30)
    finally:
        daemon.config.gate.set()
    told = "gatectl: interrupted; the change may or may not have been made: 'gatectl config history' tells\n"
    assert (process.returncode, out, err) == (130, "", told)


def test_a_gateway_that_goes_away_leaves_no_doubt_about_a_comparison(gatectl: Gatectl, folder: Path) -> None:
    """Nor about what tells of a change."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(gatectl.environment["GATECTL_SOCKET"])
        listener.listen()

        def deaf() -> None:
            with suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    connection.recv(100_000)
                    connection.close()

        threading.Thread(target=deaf, daemon=True).start()
        ended = gatectl("config", "diff", "-f", GATEWAY)
        assert (ended.code, ended.err.count("\n"), "may or may not" in ended.err) == (6, 1, False), ended
        ended = gatectl("config", "rollback", "1", "--yes")
        assert (ended.code, "may or may not" in ended.err) == (6, False), "that was the rehearsal"


EDITOR = """#!/bin/sh
n=$(cat count 2>/dev/null || echo 0); n=$((n + 1)); echo $n > count
stat -c %a "$1" > mode; cp "$1" seen.$n; . ./edit.$n
"""


class Editing:
    """`gatectl config edit` with an editor that does what a script says, time by time."""

    def __init__(self, gatectl: Gatectl, folder: Path) -> None:
        self.folder = folder
        self._gatectl = gatectl
        (folder / "editor").write_text(EDITOR)
        (folder / "editor").chmod(0o700)

    def __call__(self, *scripts: str, arguments: tuple[str, ...] = ("--yes",)) -> Ended:
        for number, script in enumerate(scripts, 1):
            (self.folder / f"edit.{number}").write_text(script)
        done = subprocess.run(
            self._gatectl.argv("config", "edit", *arguments), cwd=self.folder, stdin=subprocess.DEVNULL,
            env=self._gatectl.environment | {"EDITOR": f"{self.folder}/editor", "TMPDIR": str(self.folder)},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    @property
    def left(self) -> list[Path]:
        return list(self.folder.glob("gateway-*.yaml"))


@pytest.fixture
def editing(daemon: FakeDaemon, gatectl: Gatectl, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Editing:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent.parent))
    gatectl.environment["PYTHONPATH"] = str(HERE.parent.parent)
    gatectl.environment.pop("VISUAL", None)
    return Editing(gatectl, folder)


def test_what_is_edited_is_applied(editing: Editing, daemon: FakeDaemon) -> None:
    ended = editing('sed -i "s/timeout_s: 5/timeout_s: 7/; /name: pro/,/price/d" "$1"')
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "~ service orders\n    timeout_s: 5 -> 7\n- plan pro\n0 to add, 1 to change, 1 to remove\n"
        "Revision 4: 0 added, 1 changed, 1 removed.\n"
    )
    assert (editing.folder / "mode").read_text() == "600\n"
    assert editing.left == []
    assert sent(daemon, "/v1/config/apply")[0][0]["prune"] == "true"


def test_an_unchanged_file_changes_nothing(editing: Editing, daemon: FakeDaemon) -> None:
    assert editing(":") == Ended(0, "Nothing to do: the gateway has it all as it is there.\n")
    assert editing.left == []
    assert not sent(daemon, "/v1/config/apply")


def test_mistakes_come_back_at_the_top(editing: Editing) -> None:
    """Also those that only the gateway knows; the lines that they name are those of the file that is opened."""
    ended = editing(
        'sed -i "s/timeout_s: 5/timeout_s: [/" "$1"',
        'sed -i "s/timeout_s: \\[/timeout_s: soon/" "$1"',
        'sed -i "s/timeout_s: soon/timeout_s: 9/" "$1"',
    )
    assert (ended.code, ended.err) == (0, "")
    assert "    timeout_s: 5 -> 9\n" in ended.out
    second, third = ((editing.folder / f"seen.{number}").read_text().splitlines() for number in (2, 3))
    assert second[0].startswith("# ! line ")
    line = next(number for number, text in enumerate(third, 1) if "timeout_s: soon" in text)
    assert third[0] == f"# ! line {line}, column 5: timeout_s must be a number, not a string"
    assert not any(text.startswith("# !") for text in third[1:])


def test_mistakes_that_stay_end_it_and_the_edit_is_kept(editing: Editing) -> None:
    ended = editing('sed -i "s/timeout_s: 5/timeout_s: soon/" "$1"', ":")
    assert ended.code == 4
    kept = editing.left[0]
    assert ended.err == f"gatectl: the file still has mistakes, and nothing was done; your edit is kept in {kept}\n"
    assert "timeout_s: soon" in kept.read_text()


def test_an_edit_that_is_not_confirmed_is_kept(editing: Editing) -> None:
    ended = editing('sed -i "s/timeout_s: 5/timeout_s: 7/" "$1"', arguments=())
    assert ended.code == 2
    assert ended.err.endswith(f"; your edit is kept in {editing.left[0]}\n")


def test_what_others_change_meanwhile_is_not_undone(editing: Editing, daemon: FakeDaemon) -> None:
    done = threading.Event()

    def change() -> None:
        while not (editing.folder / "seen.1").exists():
            done.wait(0.01)
        daemon.config.document["tenants"][0]["currency"] = "USD"
        (editing.folder / "changed").touch()

    other = threading.Thread(target=change)
    other.start()
    ended = editing('sed -i "s/timeout_s: 5/timeout_s: 7/" "$1"; while [ ! -e changed ]; do sleep 0.01; done')
    other.join()
    assert ended.code == 4
    assert ended.err.startswith("gatectl: the configuration has been changed by others meanwhile; edit it again; your")


@pytest.mark.parametrize(
    ("editor", "told"),
    [
        ("false", "the editor 'false' ended with 1; nothing was done"),
        ("/no/editor", "cannot start the editor '/no/editor': No such file or directory; set EDITOR to another"),
        ("vi '", "EDITOR is no command: No closing quotation; set it to one such as vi"),
    ],
)
def test_an_editor_that_fails(daemon: FakeDaemon, gatectl: Gatectl, folder: Path, editor: str, told: str) -> None:
    ended = gatectl("config", "edit", EDITOR=editor, VISUAL="", TMPDIR=str(folder))
    assert ended.err == f"gatectl: {told}\n"
    assert ended.code in (1, 2)
    assert list(folder.glob("gateway-*")) == []


def test_with_the_daemon_down(gatectl: Gatectl, folder: Path) -> None:
    for arguments in (["dump"], ["diff", "-f", GATEWAY], ["apply", "-f", GATEWAY], ["history"], ["edit"]):
        ended = gatectl("config", *arguments, TMPDIR=str(folder))
        assert (ended.code, ended.out) == (6, "")
        assert ended.err.startswith("gatectl: no gateway at ")
        assert ended.err.count("\n") == 1
    assert os.listdir(folder) == []
