"""Every failure is one line that says what to do, with the exit code that scripts rely on."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gatectl.errors import EXIT_CODES, PROBLEMS, from_problem
from tests.gatectl.conftest import Ended, Gatectl, press_until_it_ends
from tests.gatectl.fake_daemon import FakeDaemon
from tests.gatectl.problems import ProblemError


def assert_one_line(ended: Ended, code: int, *parts: str) -> None:
    assert ended.code == code, ended
    assert ended.out == ""
    assert ended.err.startswith("gatectl: ")
    assert ended.err.endswith("\n")
    assert ended.err.count("\n") == 1
    for part in parts:
        assert part in ended.err


MISUSE = (
    ("servce list", "no noun 'servce'", "did you mean 'service'?"),
    ("invoices list", "no noun 'invoices'", "did you mean 'billing invoice'?"),
    ("tail", "no noun 'tail'", "did you mean 'logs --follow'?"),
    ("zzz", "no noun 'zzz'", "status, doctor, top, logs, explain"),
    ("service lsit", "no verb 'lsit'", "did you mean 'list'?"),
    ("service delete orders", "did you mean 'remove'?"),
    ("plan create x", "did you mean 'add'?"),
    ("service", "needs a verb: add, list, show, set, health, drain, remove"),
    ("service add", "missing argument 'NAME'", "gatectl service add --help"),
    ("service add a http://b c", "unexpected extra argument"),
    ("service list --tennant x", "no such option: --tennant", "did you mean '--tenant'?"),
    ("service list -o xml", "no output form 'xml'", "json"),
    ("service list --columns slug,ulr", "no column 'ulr'", "did you mean 'url'?"),
    ("service list --limit 0", "--limit"),
    ("service list -t ''", "--tenant is empty"),
    ("service show ''", "a name is empty"),
    ("explain GET orders/42", "'orders/42' does not begin with /", "such as: gatectl explain GET /orders/42"),
    ("service set orders", "nothing to change"),
    ("plan set pro", "nothing to change"),
    ("plan set pro --tier rest=1 --no-tier", "--tier and --no-tier contradict"),
    ("plan set pro --package 5=1 --no-package", "--package and --no-package contradict"),
    ("plan set pro --base-fee 5 --no-base-fee", "--base-fee and --no-base-fee contradict"),
    ("plan simulate pro --included 5 --no-included", "--included and --no-included contradict"),
    ("plan add p --tier 10k", "--tier: '10k' says not how much of what", "10k=0.001 or rest=0.0005"),
    ("plan add p --package 5.00", "--package: '5.00' says not how much of what", "1000=5.00"),
    ("plan add p --count bytes", "'bytes'"),
    ("service set orders --path /a --no-path", "--path and --no-path contradict", "one of them"),
    ("service set orders --body-limit 1 --no-body-limit", "contradict"),
    ("service set orders --timeout 5s --no-timeout", "--timeout and --no-timeout contradict"),
    ("service add a http://b --tunnel-lifetime 1d --no-tunnel-lifetime", "contradict"),
    ("service set orders --max-in-flight 5 --no-max-in-flight", "contradict"),
    ("service set orders --tls-ca a --no-tls-ca", "contradict"),
    ("service set orders --tls-cert a --no-tls-cert", "--tls-cert and --no-tls-cert contradict"),
    ("service set orders --tls-key a --no-tls-cert", "--tls-key and --no-tls-cert contradict"),
    ("service set orders --health /h --no-health", "--health and --no-health contradict"),
    ("service set orders --breaker-failures 5 --no-breaker", "--breaker-failures and --no-breaker contradict"),
    ("service set orders --request-header 'remove A' --no-request-header", "contradict"),
    ("service set orders --weight http://a", "--weight: 'http://a' is not a target and its weight"),
    ("service set orders --weight http://a=x", "--weight: 'http://a=x' is not a target and its weight"),
    ("service set orders --request-header 'X-Env: prod'", "--request-header: 'X-Env: prod' is not a rule such as"),
    ("service set orders --request-header 'set X-Env'", "is not a rule such as 'set X-Env: prod'"),
    ("service set orders --response-header 'remove X-Env: a'", "is not a rule"),
    ("service set orders --balance random", "--balance"),
    ("service drain", "missing argument 'TARGET'"),
    ("service set orders --tls-ca ''", "--tls-ca: the name of a file is missing"),
    ("service add a http://b --idle-timeout 30", "--idle-timeout: '30' is not a duration"),
    ("service add a http://b --max-in-flight many", "--max-in-flight"),
    ("plan set starter --rate 5/s --no-rate", "--rate and --no-rate contradict"),
    ("plan set starter --quota 5 --no-quota", "contradict"),
    ("key set ci --plan starter --no-plan", "--plan and --no-plan contradict"),
    ("key set ci --service orders --all-services", "contradict"),
    ("key set ci --expires 1d --no-expiry", "contradict"),
    ("service add a http://b --timeout 30", "--timeout: '30' is not a duration", "30s"),
    ("service add a http://b --body-limit big", "--body-limit: 'big' is not a size"),
    ("service add a http://b --auth jwt", "--auth"),
    ("key create --expires yesterday", "in the past"),
    ("key create --expires 90", "--expires: '90'"),
    ("key create -o id", "would lose the key"),
    ("key revoke ci", "nobody to ask", "--yes"),
    ("service remove orders", "nobody to ask", "--yes"),
    ("tenant remove acme", "nobody to ask", "--yes"),
    ("usage show --since tomorrow", "--since: 'tomorrow'"),
    ("usage show --since 24h --until 7d", "is not before"),
    ("usage show --by colour", "'colour' is no dimension"),
    ("usage show --interval week", "--interval"),
    ("usage show --plot -o csv", "--plot"),
    ("usage show --interval hour --plot-as heat -o json", "--plot draws below a table, not below json"),
    ("usage show --plot-as heat", "--plot-as heat draws a course of time; add --interval hour"),
    ("usage show --plot-as heat --interval day", "draws the hours of days; take --interval hour"),
    ("usage show --plot-as pie", "--plot-as"),
    ("usage show -q", "no ids"),
    ("usage export -o table", "an export is no table; take --format csv, ndjson, parquet"),
    ("usage export -o csv --format ndjson", "--format ndjson and -o csv contradict"),
    ("usage export --format parquet", "parquet is written to a file; name it with --out"),
    ("usage export --format xml", "--format"),
    ("usage export --columns colour", "no column 'colour'"),
    ("usage export --since 1h --until 2h", "is not before"),
    ("usage top --by colour", "--by"),
    ("usage top --of money", "--of"),
    ("usage top --limit 0", "--limit"),
    ("usage top --since 1h --until 2h", "is not before"),
    ("usage tail --lines 9999", "--lines"),
    ("usage tail --all-tenants -t acme", "--all-tenants and --tenant contradict"),
    ("billing show --period 2026-13", "--period: '2026-13' is not a month"),
)


@pytest.mark.parametrize(("command", "parts"), [(line[0], line[1:]) for line in MISUSE])
@pytest.mark.usefixtures("daemon")
def test_misuse_exits_2(gatectl: Gatectl, command: str, parts: tuple[str, ...]) -> None:
    words = shlex.split(command)
    assert_one_line(gatectl(*words), 2, *parts)


@pytest.mark.usefixtures("daemon")
def test_not_found_exits_3_and_says_what_is_near(gatectl: Gatectl) -> None:
    assert_one_line(gatectl("service", "show", "ordres"), 3, "no service 'ordres'", "did you mean 'orders'?")
    assert_one_line(gatectl("service", "show", "zzz"), 3, "'gatectl service list' shows what there is")
    assert_one_line(gatectl("key", "create", "--plan", "zzz"), 3, "'gatectl plan list'")
    assert_one_line(gatectl("service", "list", "-t", "nobody"), 3, "no tenant 'nobody'", "'gatectl tenant list'")


@pytest.mark.usefixtures("daemon")
def test_what_to_type_next_is_in_the_same_tenant(gatectl: Gatectl) -> None:
    assert_one_line(gatectl("plan", "show", "zzz", "-t", "acme"), 3, "'gatectl plan list -t acme' shows what")
    taken = gatectl("service", "add", "orders", "http://a", "-t", "acme")
    assert_one_line(taken, 4, "'gatectl service list -t acme' shows what")


def test_what_force_would_do_is_told_as_it_is_typed(
    gatectl: Gatectl, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = daemon.answer

    def refuse(method: str, *more: Any) -> tuple[int, Any]:
        if method == "DELETE":
            raise ProblemError(409, "conflict", "tenant 'acme' still has 1 key; force removes them with it")
        return answer(method, *more)

    monkeypatch.setattr(daemon, "answer", refuse)
    for asked in ("--yes", "--dry-run"):
        refused = gatectl("tenant", "remove", "acme", asked)
        assert refused.err == "gatectl: tenant 'acme' still has 1 key; --force removes them with it\n"
        assert refused.code == 4


@pytest.mark.usefixtures("daemon")
def test_conflict_and_invalid_exit_4(gatectl: Gatectl) -> None:
    assert_one_line(gatectl("service", "add", "orders", "http://a"), 4, "exists already", "'gatectl service list'")
    assert_one_line(gatectl("service", "add", "new", "ftp://a"), 4, "not a URL", "gatectl service add --help")
    assert_one_line(gatectl("tenant", "remove", "default", "--yes"), 4, "cannot be removed")


def test_daemon_down_exits_6(gatectl: Gatectl, folder: Path) -> None:
    for command in (["service", "list"], ["status"], ["key", "create"], ["usage", "show"]):
        assert_one_line(gatectl(*command), 6, f"no gateway at {folder}/admin.sock", "start gatewayd", "--socket")


def test_a_socket_without_a_listener_exits_6(gatectl: Gatectl, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(folder / "admin.sock"))
    assert_one_line(gatectl("status"), 6, "nothing listens", "start gatewayd")


def test_what_is_no_socket_exits_6(gatectl: Gatectl, folder: Path) -> None:
    (folder / "file").write_text("")
    assert_one_line(gatectl("status", "--socket", str(folder / "file")), 6, "nothing listens")
    assert_one_line(gatectl("status", "--socket", str(folder / "file" / "x")), 6, "no gateway at")


def test_an_impossible_socket_path_exits_2(gatectl: Gatectl) -> None:
    assert_one_line(gatectl("status", "--socket", "/" + "x" * 200), 2, "cannot be the path of a socket")


def test_no_permission_on_the_socket_exits_5(gatectl: Gatectl, daemon: FakeDaemon, folder: Path) -> None:
    daemon.path.chmod(0o600)
    folder.chmod(0o755)
    if os.geteuid() == 0:
        assert_one_line(_as_nobody(gatectl), 5, "no permission to use", "member of the socket's group")
        return
    daemon.path.chmod(0)
    assert_one_line(gatectl("status"), 5, "no permission to use")


def _as_nobody(gatectl: Gatectl) -> Ended:
    """Root may everything, so the check is made as another user, in a process that has loaded gatectl before."""
    load, ask = "import os, gatectl.app as app, gatectl.commands.status", "raise SystemExit(app.run(['status']))"
    script = f"{load}; os.setuid(65534); {ask}"
    done = subprocess.run([*gatectl.argv()[:1], "-c", script], env=gatectl.environment, capture_output=True, text=True)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("not_found", 3), ("conflict", 4), ("invalid", 4), ("malformed", 4), ("precondition_failed", 4),
     ("unsupported_media_type", 4), ("not_permitted", 5), ("unavailable", 1), ("internal", 1), ("never_heard_of", 1)],
)  # fmt: skip
def test_problem_codes_have_exit_codes(code: str, exit_code: int) -> None:
    error = from_problem(400, {"code": code, "detail": "it is so."})
    assert EXIT_CODES[type(error)] == exit_code
    assert error.what == "it is so"
    assert from_problem(400, {"code": code, "detail": "take gwt_..."}).what == "take gwt_..."


@pytest.mark.parametrize(
    ("field", "detail", "told"),
    [
        ("tls_ca_file", "tls_ca_file: /a cannot be read", "--tls-ca: /a cannot be read"),
        ("in_flight_limit", "in_flight_limit must be 1 or more", "--max-in-flight: in_flight_limit must be 1 or more"),
        ("targets", "targets: target 'x' has no scheme", "URL: target 'x' has no scheme"),
        ("slug", "slug 'A' has a capital", "slug 'A' has a capital"),
    ],
)
def test_a_refused_value_is_told_by_the_option_that_was_typed(
    gatectl: Gatectl, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, field: str, detail: str, told: str
) -> None:
    def refuse(*_: object) -> None:
        raise ProblemError(422, "invalid", detail, field=field)

    monkeypatch.setattr(daemon, "answer", refuse)
    assert_one_line(gatectl("service", "add", "a", "http://b"), 4, f"gatectl: {told}; 'gatectl service add --help'")
    assert_one_line(gatectl("service", "set", "a", "--auth", "none"), 4, f"gatectl: {told}; 'gatectl service set")


@pytest.mark.parametrize("verb", ["create", "set ci"])
@pytest.mark.parametrize(
    ("field", "typed"),
    [("networks", "--network"), ("rates", "--rate"), ("in_flight_limit", "--max-in-flight"), ("price", "--price")],
)
def test_so_is_a_refused_value_of_a_key(
    gatectl: Gatectl, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, verb: str, field: str, typed: str
) -> None:
    def refuse(*_: object) -> None:
        raise ProblemError(422, "invalid", f"{field}: 'x' is none", field=field)

    monkeypatch.setattr(daemon, "answer", refuse)
    assert_one_line(gatectl("key", *verb.split(), typed, "5"), 4, f"gatectl: {typed}: 'x' is none; 'gatectl key ")


def test_every_kind_of_problem_has_an_exit_code() -> None:
    assert set(PROBLEMS.values()) <= set(EXIT_CODES)


def test_a_reader_that_goes_away_is_no_error(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["services"] *= 2000
    process = subprocess.Popen(
        gatectl.argv("service", "list", "--all"),
        env=gatectl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 141


@pytest.mark.usefixtures("daemon")
def test_a_full_disk_is_said(gatectl: Gatectl) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            gatectl.argv("service", "list"), env=gatectl.environment, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "gatectl: cannot write the answer: No space left on device\n")


@contextmanager
def answering(path: Path, *parts: bytes, then_wait: bool = False) -> Iterator[threading.Event]:
    """A server that answers its one connection with these bytes, in these parts."""
    asked = threading.Event()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        asked.set()
        for part in parts:
            connection.sendall(part)
        if then_wait:
            connection.recv(1)
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield asked
    thread.join()
    listener.close()


ANSWER = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{"item\r\n7\r\ns": []}\r\n0\r\n\r\n'


def test_an_answer_may_come_in_any_parts(gatectl: Gatectl, folder: Path) -> None:
    with answering(folder / "admin.sock", *(ANSWER[at : at + 1] for at in range(len(ANSWER)))):
        ended = gatectl("tenant", "list", "-o", "json")
    assert (ended.code, ended.out) == (0, '{\n  "items": []\n}\n')


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", 6, "is no gateway"),
        (b"", 6, "closed the connection before it had answered"),
        (ANSWER[:60], 6, "closed the connection before it had answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 6, "is no gateway"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", 6, "is no gateway"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", 1, "answered 500"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}', 1, "this should not have happened"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_one_line(gatectl: Gatectl, folder: Path, answer: bytes, code: int, said: str) -> None:
    with answering(folder / "admin.sock", answer):
        ended = gatectl("service", "list", "-o", "json")
    assert_one_line(ended, code, said)


def test_a_silent_gateway_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gatectl import client, errors

    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.05)
    unanswered = pytest.raises(errors.UnreachableError, match=r"did not answer within 0\.05 s")
    with answering(folder / "admin.sock", b"HTTP/1.1 200 OK\r\n", then_wait=True), unanswered:
        client.Gateway(str(folder / "admin.sock")).get("/v1/status")


def test_ctrl_c_is_quiet(gatectl: Gatectl, folder: Path) -> None:
    with answering(folder / "admin.sock", then_wait=True) as asked:
        process = subprocess.Popen(
            gatectl.argv("status"), env=gatectl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert asked.wait(30)
        press_until_it_ends(process)
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 130


TAILED = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
TAILED_LINE = b'd\r\n{"status":2}\n\r\n'


def test_ctrl_c_ends_a_tail_after_what_it_has_written(gatectl: Gatectl, folder: Path) -> None:
    with answering(folder / "admin.sock", TAILED, TAILED_LINE, then_wait=True):
        process = subprocess.Popen(
            gatectl.argv("usage", "tail", "--columns", "status", "--no-header"),
            env=gatectl.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"2\n", "a line is written when it comes"
        press_until_it_ends(process)
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 130


def test_a_gateway_that_dies_ends_a_tail_with_one_line(gatectl: Gatectl, folder: Path) -> None:
    with answering(folder / "admin.sock", TAILED, TAILED_LINE, b"5\r\n{"):
        ended = gatectl("usage", "tail", "--columns", "status", "--no-header")
    assert (ended.code, ended.out) == (6, "2\n")
    assert ended.err == (
        "gatectl: the gateway went away in the middle of its answer; 'gatectl status' tells whether it is back\n"
    )


@pytest.mark.usefixtures("daemon")
def test_a_tail_that_is_refused_writes_no_heading(gatectl: Gatectl) -> None:
    assert_one_line(gatectl("usage", "tail", "--service", "nowhere"), 3, "there is no service 'nowhere'")
    assert_one_line(gatectl("usage", "tail", "--status", "9"), 4, "--status: '9' is not a status", "usage tail --help")


def test_help_needs_no_daemon(gatectl: Gatectl) -> None:
    for command in ([], ["--help"], ["-h"], ["key", "--help"], ["key", "revoke", "--help"]):
        ended = gatectl(*command)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("Usage: gatectl")


def test_escape_sequences_in_names_never_reach_a_terminal(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["keys"][0]["name"] = "a\x1b]0;owned\x07\tb\nc"
    assert "\x1b]" not in gatectl.at_terminal("key", "list").out
    line = gatectl("key", "list").out.splitlines()[1]
    assert line.split("\t")[1] == r"a\x1b]0;owned\x07\tb\nc"
    ended = gatectl.at_terminal("key", "revoke", "ci", "--yes")
    assert "\x1b]" not in ended.out
