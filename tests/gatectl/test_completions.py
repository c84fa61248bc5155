"""What completes a command line: from the grammar without a daemon, names from a daemon, and never a word too many."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gatectl import completion
from gatectl.completion import names, shells, sources
from gatectl.completion.line import read
from gatectl.completion.table import ROOT, SHARED
from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon, key, service
from tests.reference.kinds import kind_of_argument, kind_of_option
from tests.reference.walk import walked

BREAKS = " \t\n\"'@><=;|&(:"  # of a bash as it comes


@pytest.fixture
def at_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process asks at the socket of the test, as gatectl would: a process for each line would take a minute."""
    monkeypatch.setenv("GATECTL_SOCKET", str(folder / "admin.sock"))
    patient(monkeypatch)


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon in a process that does other things, too, is not always as quick as a person wants it."""
    monkeypatch.setattr(names, "DEADLINE_S", 20.0)


def offered(line: str, shell: str = "fish") -> list[str]:
    """What is offered at the end of a line, whose words have no quotes."""
    return [text.partition("\t")[0] for text in answered(line, shell)[1:]]


def answered(line: str, shell: str = "fish") -> list[str]:
    """The lines of an answer."""
    words = [line, BREAKS] if shell == "bash" else line.split(" ")[1:]
    return shells.answer(shell, words).splitlines()


def known(line: str) -> list[str]:
    """What is offered from the grammar alone, in this process."""
    return [text for text, _ in shells.offers(read(line.split(" ")[1:], ROOT, SHARED))]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gatectl se", "service"),
        ("gatectl key cr", "create"),
        ("gatectl keys re", "revoke"),
        ("gatectl billing inv", "invoice"),
        ("gatectl billing invoices ", "list show export"),
        ("gatectl billing invoice export --format ", "pdf html csv json"),
        ("gatectl service list --out", "--output"),
        ("gatectl service list -o ", "table wide json ndjson yaml csv tsv id"),
        ("gatectl usage show --interval ", "hour day"),
        ("gatectl -t acme key li", "list"),
        ("gatectl -qt acme key li", "list"),
        ("gatectl --tenant=acme key li", "list"),
        ("gatectl nonsense ", ""),
        ("gatectl service nonsense ", ""),
        ("gatectl service list --nonsense=", ""),
        ("gatectl service add ", ""),
    ],
)
def test_the_grammar_completes_without_a_daemon(shell: str, line: str, expected: str) -> None:
    assert offered(line, shell) == expected.split()
    assert answered(line, shell)[:1] == (["names"] if expected else [])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gatectl service ls --no-", "--no-header --no-pager"),
        ("gatectl usage show --since 2", "24h"),
        ("gatectl usage show --since=th", "--since=this-month"),
        ("gatectl service list -o j", "json"),
        ("gatectl service list --output=j", "--output=json"),
        ("gatectl service list --columns slug,u", "slug,url"),
        ("gatectl service list --columns=slug,u", "--columns=slug,url"),
        ("gatectl service health --columns seen", "seen_by"),
        ("gatectl usage show --by service,k", "service,key"),
        ("gatectl usage show --columns ro", "route"),
        ("gatectl usage top --by te", "tenant"),
        ("gatectl key list --status d", "disabled"),
        ("gatectl explain P", "POST PUT PATCH"),
        ("gatectl key create --expires 9", "90d"),
        ("gatectl service set orders --timeout 3", "30s"),
        ("gatectl service set orders --no-timeout --no-timeo", ""),
        ("gatectl key create --lab", "--label"),
        ("gatectl key create --label a=b --lab", "--label"),
        ("gatectl key create --name x --nam", ""),
        ("gatectl key list -o json --outp", ""),
        ("gatectl service set x --preserve-host --no-pres", ""),
        ("gatectl billing adjust -5 --rea", "--reason"),
        ("gatectl service add -- --fo", ""),
        ("gatectl service list --hel", "--help"),
    ],
)
def test_options_and_their_values(line: str, expected: str) -> None:
    assert known(line) == expected.split()


def test_commas_may_follow_and_files_are_the_shells_own_business() -> None:
    assert answered("gatectl service list --columns sl") == ["names nospace", "slug"]
    for line in ("key import ", "key create --out ", "billing invoice export --out=", "service set x --tls-ca ./"):
        assert answered(f"gatectl {line}") == ["files"]


@pytest.mark.usefixtures("at_socket")
def test_names_come_with_what_they_are(daemon: FakeDaemon) -> None:
    assert answered("gatectl service show ") == [
        "names",
        "orders\thttp://127.0.0.1:8001",
        "products\thttp://127.0.0.1:8002",
    ]
    assert daemon.requests == [("GET", "/v1/names", {"of": "service", "limit": "200"}, None)]
    assert answered("gatectl key show gw_a", "zsh") == ["names", "gw_ab12cd34\tci, starter"]
    assert answered("gatectl key show c", "zsh") == ["names", "ci\tgw_ab12cd34, starter"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("service remove orders ", "products"),
        ("service health o", "orders"),
        ("service drain http://127.0.0.1:8003", "http://127.0.0.1:8003"),
        ("route set --to o", "orders"),
        ("route show r", "rte_host2222 reads rte_user2222 rte_keyd2222"),
        ("plan show --versions st", "starter"),
        ("plan show svc", ""),
        ("key create --service=or", "--service=orders"),
        ("key create --service orders --service ", "products"),
        ("key create --plan ", "pro starter"),
        ("key show ", "ci gw_bc23df45 old"),
        ("quota grant c", "ci"),
        ("usage show --key gw_b", "gw_bc23df45"),
        ("client show k", "kiosk-7"),
        ("alert test alr_sp", "alr_spnd2222"),
        ("tenant show ", "acme default"),
        ("service list -t ac", "acme"),
        ("tenant set acme --default-plan s", "starter"),
        ("billing invoice show ", "INV-000001"),
        ("billing show --period 2026-1", "2026-11 2026-10.2 2026-10"),
    ],
)
@pytest.mark.usefixtures("daemon", "at_socket")
def test_names_complete_where_one_is_meant(line: str, expected: str) -> None:
    assert offered(f"gatectl {line}") == expected.split()


@pytest.mark.usefixtures("at_socket")
def test_the_tenant_and_the_socket_of_the_line_are_asked(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    offered("gatectl -t acme service show ")
    assert daemon.requests[-1][2]["tenant"] == "acme"
    monkeypatch.setenv("GATECTL_SOCKET", "/nowhere")
    line = f"gatectl --socket {daemon.path} service show o"
    assert answered(line) == ["names", "orders\thttp://127.0.0.1:8001"]


@pytest.mark.usefixtures("at_socket")
def test_a_name_that_several_keys_have_is_offered_by_their_prefixes(daemon: FakeDaemon) -> None:
    daemon.state["keys"].append(key("de45gh67", "ci", [], None))
    assert offered("gatectl key show ") == ["gw_ab12cd34", "gw_bc23df45", "old", "gw_de45gh67"]


@pytest.mark.usefixtures("at_socket")
def test_words_of_bash(daemon: FakeDaemon) -> None:
    """As it was typed, quotes and all; what bash takes for another word is left out of the answer."""
    daemon.state["keys"] = [key("ab12cd34", "my key: $1", [], None), key("bc23df45", "it's", [], None)]
    assert offered("gatectl key show m", "bash") == [r"my\ key:\ \$1"]
    assert offered(r"gatectl key show my\ k", "bash") == [r"my\ key:\ \$1"]
    assert offered(r"gatectl key show my\ key:", "bash") == [r"\ \$1"]
    assert offered("gatectl key show 'my k", "bash") == ["my key: $1"]
    assert offered('gatectl key show "my key: ', "bash") == [r"my key: \$1"]
    assert offered("gatectl key show 'it", "bash") == [r"it'\''s"]
    assert offered("gatectl usage show --key=it", "bash") == [r"it\'s"]
    assert offered('gatectl usage show --key="it', "bash") == ["it's"]
    assert offered("gatectl service drain http://127.0.0.1:8003", "bash") == ["8003"]
    assert offered(r"gatectl service drain http\:", "bash")[2:] == ["http://127.0.0.1:8003"]


@pytest.mark.usefixtures("at_socket")
@pytest.mark.parametrize(
    "name", ["$(touch x)", "`touch x`", 'say "hi"', "'tis", "b\\s", "a!b", "'", '"', "$HOME;touch x"]
)
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_no_name_is_obeyed_by_bash(daemon: FakeDaemon, name: str, quote: str) -> None:
    """Whoever made it: what is completed is that name, word for word."""
    daemon.state["keys"] = [key("ab12cd34", name, [], None)]
    (told,) = offered(f"gatectl key show {quote}", "bash")
    word = quote + told + quote * (bool(quote) and not told.endswith(quote))
    printed = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, text=True, check=True)
    assert printed.stdout == name


@pytest.mark.usefixtures("at_socket")
def test_what_a_terminal_would_obey_is_never_offered(daemon: FakeDaemon) -> None:
    daemon.state["services"] = [service("a\x1b[2J", "http://a"), service("b", "http://\x1b]0;x\x07\n\tb")]
    assert answered("gatectl service show ") == ["names", "b\thttp:// ]0;x b"]


@contextmanager
def listening(path: Path, reply: bytes | None) -> Iterator[None]:
    """Something at the socket that answers so; None: it takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        taken = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                taken.append(connection)
                if reply is not None:
                    with connection:
                        connection.recv(65536)
                        with suppress(OSError):  # it listens no longer than it must
                            connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


def reply(body: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, size, body)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"\x00\xff",
        b"HTTP/1.1 200 OK\r\n\r\n",
        reply(b"not json"),
        reply(b"[]"),
        reply(b'{"items": [{"name": 7, "id": null}]}'),
        reply(b'{"items": [{"name": "orders", "id": "x", "about": ""}]}', b"403 Forbidden"),
        reply(b'{"items": [{"name": "orders", "id": "x", "about": ""}]}', length=1000),
        reply(b"[" * 100_000),
        reply(b" " * (2 << 20)),
    ],
    ids=["silence", "nothing", "bytes", "empty", "words", "list", "types", "forbidden", "cut", "depths", "endless"],
)
def test_a_daemon_that_does_not_answer_well_is_no_daemon(gatectl: Gatectl, folder: Path, answer: bytes | None) -> None:
    with listening(folder / "admin.sock", answer):
        assert gatectl("service", "show", "", _GATECTL_COMPLETE="fish") == (0, "", "")


def test_no_daemon_no_socket(gatectl: Gatectl, folder: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        words = ["gatectl service show ", BREAKS] if shell == "bash" else ["service", "show", ""]
        assert gatectl(*words, _GATECTL_COMPLETE=shell) == (0, "", "")
    for place in ("/nowhere/at/all", str(folder), "x" * 200, "\udcff"):
        assert gatectl("service", "show", "", _GATECTL_COMPLETE="fish", GATECTL_SOCKET=place) == (0, "", "")
    assert gatectl("--socket", "", "service", "show", "", _GATECTL_COMPLETE="zsh") == (0, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "csh", "1"])
@pytest.mark.parametrize(
    "words", [[], [""], ["--"], ["-"], ["--="], ["'"], ['"\\'], ["\udcff"], ["\\"] * 3, ["=", ":"]]
)
def test_no_line_is_an_error(
    shell: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    shells.answer(shell, words)
    completion.answer(shell, words)
    assert (ends, capfd.readouterr().err) == ([0], "")


def test_the_deadline_is_over_all_of_it(gatectl: Gatectl, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small parts, each in time, are not waited for longer than one."""
    now = [0.0]
    monkeypatch.setattr(names, "monotonic", lambda: now[0])
    asked = []

    class Dripping(socket.socket):
        def recv(self, *_: object) -> bytes:
            asked.append(self.gettimeout())
            now[0] += 0.03
            return b"x"

    monkeypatch.setattr("socket.socket", Dripping)
    with listening(folder / "admin.sock", None), pytest.raises(TimeoutError):
        names.values("service", "", {"--socket": str(folder / "admin.sock")})
    assert asked == pytest.approx([0.08, 0.05, 0.02])


def test_every_kind_of_the_grammar_has_a_source() -> None:
    for command in walked().all():
        kinds = [kind_of_option(option) for option in command.options]
        kinds += [kind_of_argument(command, argument) for argument in command.arguments]
        assert {kind for kind in kinds if kind[:1] not in ("", "-", "=", ",")} <= {*sources.KINDS, "columns"}


def test_whatever_is_called_as_a_noun_completes_to_its_names() -> None:
    """SERVICE, PLAN, KEY, ...: each noun whose objects a command names by a word of that name."""
    nouns = {command.name.upper() for command in walked().all() if command.verbs} | {"INVOICE", "REVISION"}
    for command in walked().all():
        for argument in command.arguments:
            if argument.metavar in nouns and not argument.choices:
                assert kind_of_argument(command, argument) == argument.metavar.lower(), command.path
        for option in command.options:
            if option.metavar in nouns and not option.choices:
                assert kind_of_option(option) == option.metavar.lower() or option.names[0] in ("--default-plan", "--to")


@pytest.mark.usefixtures("daemon")
def test_columns_are_those_of_the_answer(gatectl: Gatectl) -> None:
    for line in ("service list", "usage show", "usage top", "usage verify", "billing show", "audit list", "key list"):
        header = gatectl(*line.split(" "), "-o", "csv").out.partition("\n")[0]
        columns = [text for text, _ in shells.offers(read([*line.split(" "), "--columns", ""], ROOT, SHARED))]
        assert set(header.split(",")) <= set(columns), line


@pytest.mark.usefixtures("daemon")
def test_nothing_dear_is_imported(gatectl: Gatectl) -> None:
    ended = gatectl("service", "show", "o", _GATECTL_COMPLETE="fish", PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in ended.err.splitlines()}
    assert "gatectl.completion.names" in loaded
    assert not loaded & {
        "typer",
        "typing",
        "urllib.parse",
        "httptools",
        "inspect",
        "gatectl.app",
        "gatectl.client",
        "ssl",
    }


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the file of contexts; nothing else says where a gateway is."""
    for name in ("URL", "CONTEXT", "SOCKET", "TOKEN", "CA"):
        monkeypatch.delenv(f"GATECTL_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def test_contexts_complete_from_their_file(contexts: Path, gatectl: Gatectl) -> None:
    assert answered("gatectl context use ") == ["names", "local\tthe gateway of this machine"]
    environment = {"XDG_CONFIG_HOME": str(contexts)}
    assert gatectl("context", "add", "prod", "--url", "ssh://ops@gw.example", **environment).code == 0
    assert answered("gatectl context use p") == ["names", "prod\tssh://ops@gw.example"]
    assert offered("gatectl --context ") == ["local", "prod"]
    assert offered("gatectl context add p") == []
    (contexts / "gatectl" / "contexts.json").write_text("[")
    assert answered("gatectl context use ") == []


def test_the_gateway_is_the_one_that_the_command_would_ask(
    contexts: Path, gatectl: Gatectl, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh might ask for a password: what is reached by it completes nothing."""
    patient(monkeypatch)
    here, line = str(daemon.path), "gatectl {} service show o"
    monkeypatch.setattr("gatectl.places.default_socket", lambda: here)
    assert offered("gatectl service show o") == ["orders"]
    gatectl("context", "add", "prod", "--url", "ssh://nobody@127.0.0.1:1", XDG_CONFIG_HOME=str(contexts))
    monkeypatch.setenv("GATECTL_SSH", "touch " + str(contexts / "asked"))
    for given in ("--context prod", "--url ssh://nobody@127.0.0.1:1", "--url http://127.0.0.1:1", "--context none"):
        assert offered(line.format(given)) == []
    gatectl("context", "use", "prod", XDG_CONFIG_HOME=str(contexts))
    assert offered("gatectl service show o") == []
    for given in (f"--socket {here}", "--context local"):
        assert offered(line.format(given)) == ["orders"]
    monkeypatch.setenv("GATECTL_CONTEXT", "local")
    assert offered("gatectl service show o") == ["orders"]
    monkeypatch.setenv("GATECTL_URL", "http://127.0.0.1:1")
    assert offered("gatectl service show o") == []
    assert not (contexts / "asked").exists()


def test_a_gateway_elsewhere_is_asked_for_as_long_as_it_is_in_time(
    contexts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"items": [{"name": "orders", "id": "svc_x", "about": "far"}]}'
    monkeypatch.setattr(names, "ELSEWHERE_DEADLINE_S", 20.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(reply(body))

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert answered(f"gatectl --url {url} -t acme service show o") == ["names", "orders\tfar"]
        thread.join()
        assert b"tenant=acme" in asked[0]
        monkeypatch.setattr(names, "ELSEWHERE_DEADLINE_S", 0.05)
        assert answered(f"gatectl --url {url} service show o") == []  # it takes connections and says nothing
