"""What people and programs see, word for word: at a terminal of 80 columns, in a pipe, as JSON.

`GOLDEN_UPDATE=1 pytest tests/gatectl/test_golden.py` writes the files anew; look at what changed before it is kept.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.gatectl import fake_backup
from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon
from tests.gatectl.test_grammar import every_verb

GOLDEN = Path(__file__).parent.parent / "golden" / "gatectl"
COMMANDS = (
    "status",
    "doctor",
    "doctor --acknowledge",
    "top --once",
    "top --once --view keys --sort pressure",
    "top --once --view targets --filter 8003",
    "logs",
    "logs --status 5xx,429 --limit 1",
    "service list",
    "service show products",
    "service add beta http://127.0.0.1:9000",
    "service health",
    "service drain http://127.0.0.1:8003",
    "route list",
    "route show reads",
    "route add --path /v2 --to orders",
    "route test GET /v1/users/7",
    "plan list",
    "plan add gold --rate 60/min --price 0.002",
    "plan add max --base-fee 20 --included 10000 --tier 5000=0.001 --tier rest=0.0005",
    "plan show starter --versions",
    "plan simulate starter --price 0.002",
    "key list",
    "key show ci",
    "key create --service orders --plan starter",
    "key revoke ci --yes",
    "client list",
    "client add kiosk --rate 5/s",
    "quota show",
    "quota show ci",
    "quota grant ci 5k",
    "key disable ci",
    "key rotate ci --overlap 7d",
    "tenant list",
    "tenant suspend acme",
    "usage show --by service,key",
    "usage top",
    "usage verify",
    "usage verify -t acme",
    "billing show",
    "billing show --period 2026-10",
    "billing keys",
    "billing preview",
    "billing forecast",
    "billing cycles",
    "billing ledger",
    "billing close --yes",
    "billing close 2026-11 --dry-run",
    "billing reset --yes",
    "billing invoice list",
    "billing invoice show INV-000001",
    "billing credit add 5 --reason goodwill",
    "billing credit list",
    "billing adjust -5 --reason twice",
    "billing verify",
    "billing replay INV-000001",
    "alert list",
    "alert show alr_quot2222",
    "alert add --quota 80 --url https://ops.example.com/hooks",
    "alert test alr_spnd2222",
    "config diff -f gateway.yaml --prune",
    "config apply -f gateway.yaml --yes",
    "config apply -f gateway.yaml --dry-run",
    "config dump",
    "config validate -f gateway.yaml",
    "config validate -f mistakes.yaml",
    "config history",
    "config show 2",
    "config rollback 1 --dry-run",
    "token list",
    "token create ci --role viewer --tenant acme",
    "token revoke laptop --yes",
    "audit list",
    "audit show 2",
    "audit verify",
    "backup --out backup.tar",
    "restore backup.tar --state-dir state --dry-run",
    "explain --key ci GET /orders/42",
    "explain ff42db4e2b8f4688",
    "service set orders --timeout 5s",
    "service remove orders --yes",
    "route set reads --weight 2",
    "route remove reads --yes",
    "plan set starter --shadow",
    "plan remove pro --yes",
    "key set ci --plan pro",
    "key enable ci",
    "client show kiosk-7",
    "client set kiosk-7 --no-rate",
    "client remove kiosk-7 --yes",
    "quota reset ci --yes",
    "alert remove alr_quot2222 --yes",
    "tenant add shop --name Shop",
    "tenant show acme",
    "tenant set acme --name Acme",
    "tenant resume acme",
    "tenant remove acme --yes",
    "api /v1/services/orders",
    "version",
)
EXIT_CODES = {  # of all others 0
    "explain ff42db4e2b8f4688": 8,
    "doctor": 9,
    "doctor --acknowledge": 9,
    "usage verify -t acme": 7,
    "audit verify --sha256 00": 7,
    "config validate -f mistakes.yaml": 4,
    "config diff -f gateway.yaml --prune": 7,
}
TOLD = {  # on stderr, of all others nothing
    "backup --out backup.tar": "gatectl: receiving\ngatectl: checking\n",
    "restore backup.tar --state-dir state --dry-run": "gatectl: checking\n",
    "config validate -f mistakes.yaml": "gatectl: mistakes.yaml has 3 mistakes; mend them and try again\n",
}
TERMINAL_ONLY = (
    "doctor --help",
    "backup --help",
    "restore --help",
    "--help",
    "top --help",
    "logs --help",
    "logs -o wide --since 2026-11-20",
    "service --help",
    "service add --help",
    "explain --help",
    "route --help",
    "route add --help",
    "plan set --help",
    "plan list -o wide",
    "key --help",
    "token create --help",
    "audit list --help",
    "context --help",
    "context add --help",
    "alert --help",
    "alert add --help",
    "completion --help",
    "completion install --help",
    "key rotate --help",
    "billing --help",
    "billing invoice --help",
    "billing invoice export --help",
    "billing close --help",
    "config --help",
    "config apply --help",
    "key list -o wide",
    "usage tail --help",
    "usage top --help",
    "usage verify --help",
    "usage export --help",
    "usage top --by service --of bytes --limit 2",
    "usage show --plot",
    "usage show --interval hour --plot",
    "usage show --interval hour --plot-as heat",
    "usage show --by service,key,client,status,route",
)


@pytest.fixture(autouse=True)
def cwd(gatectl: Gatectl, tmp_path: Path) -> None:
    """A folder of the test's own, with a backup and files of the configuration in it."""
    for name in ("gateway.yaml", "mistakes.yaml"):
        (tmp_path / name).write_bytes((Path(__file__).parent / name).read_bytes())
    (tmp_path / "backup.tar").write_bytes(fake_backup.backup())
    gatectl.cwd = tmp_path


# What has no golden file, and what it is tested by instead.
ELSEWHERE = {
    "usage tail": "below: it ends when the gateway does",
    "usage export": "below: it is a file's content in every form",
    "billing invoice export": "tests/gatectl/test_documents.py: a PDF or a page",
    "key verify": "tests/gatectl/test_keys.py: the key is read from standard input",
    "key import": "tests/gatectl/test_keys.py: it needs a file of keys",
    "config edit": "tests/gatectl/test_config*.py: it needs an editor",
    **{
        f"completion {verb}": "tests/gatectl/test_completions.py: scripts that are checked fresh"
        for verb in ("bash", "zsh", "fish", "install")
    },
    **{
        f"context {verb}": "tests/gatectl/test_contexts.py: places differ from run to run"
        for verb in ("add", "list", "show", "use", "check", "set", "rename", "remove")
    },
}


def test_every_verb_has_files() -> None:
    """In each of the three forms, which is what COMMANDS stands for."""
    without = {name for name, _ in every_verb() if not any(f"{line} ".startswith(f"{name} ") for line in COMMANDS)}
    assert without == set(ELSEWHERE)


def check(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("GOLDEN_UPDATE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def file_name(command: str, form: str) -> str:
    words = [word.strip("-").replace("/", "_").replace(":", "") for word in command.split()]
    return f"{'-'.join(words)}.{form}"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("daemon")
def test_piped(gatectl: Gatectl, command: str) -> None:
    ended = gatectl(*shlex.split(command))
    assert (ended.code, ended.err) == (EXIT_CODES.get(command, 0), TOLD.get(command, ""))
    check(file_name(command, "piped"), ended.out)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("daemon")
def test_json(gatectl: Gatectl, command: str) -> None:
    ended = gatectl(*shlex.split(command), "-o", "json")
    assert (ended.code, ended.err) == (EXIT_CODES.get(command, 0), TOLD.get(command, ""))
    check(file_name(command, "json"), ended.out)


@pytest.mark.parametrize("command", COMMANDS + TERMINAL_ONLY)
@pytest.mark.usefixtures("daemon")
def test_terminal(gatectl: Gatectl, command: str) -> None:
    ended = gatectl.at_terminal(*shlex.split(command))
    assert ended.code == EXIT_CODES.get(command, 0)
    if command in TOLD:  # the bar is wiped off at the end
        ended = ended._replace(out=ended.out.rpartition("\x1b[2K")[2])
    check(file_name(command, "terminal"), ended.plain)


@pytest.mark.parametrize("form", ["piped", "json", "terminal"])
@pytest.mark.usefixtures("daemon")
def test_tail(gatectl: Gatectl, form: str) -> None:
    """It ends when the gateway does, and that is no success."""
    told = "gatectl: 1,234 requests are missing here: they came faster than we read\n"
    stops = "gatectl: the gateway is stopping, and so does the tail; 'gatectl status' tells whether it is back\n"
    if form == "terminal":
        ended = gatectl.at_terminal("usage", "tail")
        assert "\x1b[38;5;130m02:00:00.012Z" in ended.out
        assert ended.out.count("\x1b[0m\n") == 4
    else:
        ended = gatectl("usage", "tail", *(["-o", "json"] if form == "json" else []))
        assert ended.err == (stops if form == "json" else told + stops)
    assert ended.code == 6
    check(file_name("usage tail", form), ended.plain)


@pytest.mark.parametrize("form", ["piped", "json", "terminal"])
@pytest.mark.usefixtures("daemon")
def test_export(gatectl: Gatectl, form: str) -> None:
    """On a terminal it is CSV all the same."""
    if form == "terminal":
        ended = gatectl.at_terminal("usage", "export", "--columns", "time,key,status,requests,cost")
    else:
        ended = gatectl("usage", "export", "-q", *(["-o", "json"] if form == "json" else []))
    assert (ended.code, ended.err) == (0, "")
    check(file_name("usage export", form), ended.plain)


def test_no_file_is_left_over(daemon: FakeDaemon) -> None:
    expected = {file_name(command, form) for command in COMMANDS for form in ("piped", "json", "terminal")}
    expected |= {file_name(command, "terminal") for command in TERMINAL_ONLY}
    expected |= {
        file_name(f"usage {verb}", form) for verb in ("tail", "export") for form in ("piped", "json", "terminal")
    }
    assert {path.name for path in GOLDEN.iterdir()} == expected
