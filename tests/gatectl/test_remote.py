"""A gateway somewhere else: how it is reached, what its clock says, and what goes wrong on the way."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from select import select
from time import monotonic, sleep
from typing import Any

import pytest
import trustme

from gatectl import wire
from gatectl.client import Gateway
from gatectl.errors import GatectlError, MisuseError, UnreachableError
from gatectl.transports.ssh import Ssh
from gatectl.transports.tcp import Tcp
from gatectl.transports.urls import transport_to
from tests.gatectl.conftest import Gatectl, press_until_it_ends
from tests.gatectl.fake_daemon import FakeDaemon
from tests.gatectl.front import Front
from tests.gatectl.problems import ProblemError
from tests.gatectl.test_failures import answering, assert_one_line

TOKEN = "gwt_ab12cd34_" + "x" * 43
NO_SOCKET = {"GATECTL_SOCKET": ""}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, folder: Path) -> str:
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "ca.pem")


@pytest.fixture
def front(daemon: FakeDaemon, authority: trustme.CA) -> Iterator[Front]:
    front = Front(daemon.path, context_of(authority.issue_cert("127.0.0.1", "localhost")))
    yield front
    front.close()


def test_the_gateways_clock_is_that_of_its_last_answer(daemon: FakeDaemon) -> None:
    gateway = Gateway(str(daemon.path))
    assert gateway.clock is None
    gateway.get("/v1/services")
    assert gateway.clock == 1795230000  # 2026-11-21T03:00:00Z
    streamed = Gateway(str(daemon.path))
    list(streamed.blocks("/v1/usage/tail", {}, 5))
    assert streamed.clock == 1795230000


@pytest.mark.parametrize("date", ["", "yesterday", "Sat, 21 Nov 2026 03:00:00 CET", "Sat, 41 Nov 2026 03:00:00 GMT"])
def test_a_date_that_is_none_is_no_clock(date: str) -> None:
    assert wire.seconds_of(date.encode()) is None


def test_a_gateway_is_asked_over_tls_with_a_token(gatectl: Gatectl, front: Front, ca_file: str, folder: Path) -> None:
    (folder / "token").write_text(TOKEN + "\n")
    typed = gatectl("service", "list", "--url", front.url, "--token-file", str(folder / "token"), "--ca", ca_file)
    assert (typed.code, typed.err) == (0, "")
    assert typed.out == gatectl("service", "list").out
    said = {"GATECTL_URL": front.url, "GATECTL_TOKEN": TOKEN, "GATECTL_CA": ca_file}
    assert gatectl("service", "list", **said).out == typed.out
    assert gatectl("service", "list", "--url", f"https://localhost:{front.port}", "--ca", ca_file).code == 0
    assert front.tokens == [TOKEN, TOKEN], "none where none was given"


def test_what_was_typed_comes_before_the_environment(gatectl: Gatectl, front: Front, folder: Path) -> None:
    nowhere = {"GATECTL_URL": "https://127.0.0.1:1"}
    assert gatectl("service", "list", "--socket", str(folder / "admin.sock"), **nowhere).code == 0
    assert gatectl("service", "list", "--context", "local", **nowhere).code == 0
    assert front.connections == 0
    assert gatectl("service", "list", **nowhere).code == 6


def test_a_connection_that_was_dear_is_kept(gatectl: Gatectl, front: Front, ca_file: str, daemon: FakeDaemon) -> None:
    ended = gatectl("service", "remove", "orders", "products", "--yes", "--url", front.url, "--ca", ca_file)
    assert ended.code == 0
    assert [request[0] for request in daemon.requests] == ["GET", "GET", "DELETE", "DELETE"]
    assert front.connections == 1


@pytest.mark.parametrize("tls", [False, True])
def test_one_that_was_closed_meanwhile_is_made_anew(
    daemon: FakeDaemon, authority: trustme.CA, ca_file: str, tls: bool
) -> None:
    front = Front(daemon.path, context_of(authority.issue_cert("127.0.0.1")) if tls else None, ends_after=1)
    gateway = Gateway(transport_to(front.url, ca_file if tls else ""))
    try:
        gateway.get("/v1/services")
        assert select([gateway._kept[0][0]], [], [], 30)[0], "it was closed"
        gateway.post("/v1/services", {"slug": "new"})
        assert front.connections == 2
        assert [request[0] for request in daemon.requests] == ["GET", "POST"]
    finally:
        gateway.close()
        front.close()


def test_a_get_is_sent_again_on_a_connection_that_dies_under_it(daemon: FakeDaemon) -> None:
    gateway = Gateway(transport_to("http://127.0.0.1:1"))
    asked = threading.Event()

    class Way(Tcp):
        made = 0

        def connect(self, timeout_s: float) -> socket.socket:
            self.made += 1
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(daemon.path))
            return connection

    way = Way("127.0.0.1", 1, "", tls=False)
    gateway.transport = way
    ours, its = socket.socketpair()

    def hang_up() -> None:
        its.recv(65536)
        asked.set()
        its.close()

    threading.Thread(target=hang_up, daemon=True).start()
    gateway._kept.append((ours, monotonic()))
    assert gateway.get("/v1/services")["items"]
    assert asked.is_set()
    assert way.made == 1
    dead, other = socket.socketpair()

    def hang_up_again() -> None:
        other.recv(65536)
        other.close()

    threading.Thread(target=hang_up_again, daemon=True).start()
    gateway.close()
    gateway._kept.append((dead, monotonic()))
    with pytest.raises(GatectlError, match="closed the connection before it had answered"):
        gateway.post("/v1/services", {"slug": "new"})  # it may have been made
    assert [request[0] for request in daemon.requests] == ["GET"]


def test_a_change_elsewhere_says_where_once(gatectl: Gatectl, front: Front, ca_file: str) -> None:
    there = ("--url", front.url, "--ca", ca_file)
    line = f"gatectl: on {front.url}\n"
    assert gatectl("key", "disable", "ci", "gw_bc23df45", *there).err == line
    assert gatectl("key", "disable", "ci", "-q", *there).err == ""
    for asks in (("key", "list"), ("service", "remove", "orders", "--dry-run"), ("explain", "GET", "/orders/42")):
        assert gatectl(*asks, *there).err == "", asks
    assert gatectl("key", "disable", "ci").err == ""  # here


def test_a_question_says_where_it_would_be_done(gatectl: Gatectl, front: Front, ca_file: str) -> None:
    there = ("--url", front.url, "--ca", ca_file)
    asked = gatectl.at_terminal("service", "remove", "orders", *there, typed="y\n", columns=200)
    assert f"gatectl: on {front.url}\nRemove service orders on {front.url}? [y/N]" in asked.plain
    assert asked.plain.count("gatectl: on") == 1
    nobody = gatectl("service", "remove", "products", *there)
    assert_one_line(nobody, 2, f"nobody to ask whether to remove service products on {front.url}")


def test_status_says_whose_it_is(gatectl: Gatectl, front: Front, ca_file: str) -> None:
    there = gatectl("status", "--url", front.url, "--ca", ca_file).out
    assert there.startswith(f"gateway\t{front.url}\n")
    assert gatectl("status").out == there.partition("\n")[2]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gw.example", "no URL of a gateway"),
        ("ftp://gw.example", "take https://HOST:PORT, ssh://USER@HOST or unix:/PATH"),
        ("https://", "names no host"),
        ("https://gw.example:99999", "no URL of a gateway: Port out of range"),
        ("https://gw.example/?a=1", "no URL of a gateway"),
        ("https://me:secret@gw.example", "a URL holds no user or password"),
        ("http://gw.example", "http:// would show the token to everybody between here and gw.example"),
        ("http://[2001:db8::1]:80", "http:// would show the token"),
        ("unix:admin.sock", "names no socket"),
        ("ssh://-oProxyCommand=x/", "cannot be a name of ssh"),
        ("ssh://-l@gw.example/", "cannot be a name of ssh"),
        ("https://gw.example\x1b[2J", "no URL of a gateway"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, said: str) -> None:
    with pytest.raises(MisuseError) as refused:
        transport_to(url)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_urls_name_their_ways() -> None:
    assert repr(transport_to("https://gw.example/")) == "<Tcp https://gw.example>"
    assert repr(transport_to("https://gw.example:8443/admin/")) == "<Tcp https://gw.example:8443/admin>"
    assert repr(transport_to("http://[::1]:9000")) == "<Tcp http://[::1]:9000>"
    assert repr(transport_to("unix:/run/a%20b.sock")) == "<UnixSocket /run/a b.sock>"
    assert repr(transport_to("ssh://gw.example/")) == "<Ssh ssh://gw.example>"
    way = transport_to("ssh://ops@gw.example:2222/run/my%20admin.sock")
    assert isinstance(way, Ssh)
    assert way.argv()[-4:] == ["-p", "2222", "ops@gw.example", "gatectl relay '/run/my admin.sock'"]


def test_what_contradicts_itself_is_refused(gatectl: Gatectl, folder: Path) -> None:
    (folder / "empty").write_text("\n")
    (folder / "binary").write_bytes(b"\x7fELF\x00 " * 2000)
    url = ("status", "--url", "https://127.0.0.1:1")
    for words, parts in (
        (("status", "--url", "https://a", "--socket", "/b"), ("--url and --socket each name a gateway",)),
        (("status", "--socket", "/b", "--token-file", "x"), ("--token-file is for a gateway at https://",)),
        (("status", "--url", "ssh://a", "--token-file", "x"), ("ssh: takes no token",)),
        (("status", "--url", "ssh://a", "--ca", "x"), ("--ca is for https://",)),
        ((*url, "--token-file", str(folder / "none")), ("cannot read", "No such file")),
        ((*url, "--token-file", str(folder / "empty")), ("holds no token",)),
        ((*url, "--token-file", str(folder / "binary")), ("holds no token, but something else",)),
        ((*url, "--ca", str(folder / "none")), ("--ca: there is no file",)),
        ((*url, "--ca", str(folder / "empty")), ("holds no certificates in PEM form",)),
    ):
        assert_one_line(gatectl(*words), 2, *parts)


def test_a_token_on_the_command_line_is_refused(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    for words in (["--token", TOKEN, "status"], ["status", "--token", TOKEN], ["status", f"--token={TOKEN}"]):
        ended = gatectl(*words)
        assert_one_line(ended, 2, "a token is never an argument", "--token-file FILE", "GATECTL_TOKEN")
        assert TOKEN not in ended.err
    assert daemon.requests == []


def test_a_name_without_an_address(gatectl: Gatectl) -> None:
    assert_one_line(gatectl("status", "--url", "https://gw.invalid"), 6, "no address is known of gw.invalid")


def test_a_localhost_elsewhere_is_not_shown_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is what a file or a name server says it is."""

    class Elsewhere(socket.socket):
        def getpeername(self) -> tuple[str, int]:
            return "192.0.2.7", 80

    here, there = socket.socketpair()
    with here, there:
        connection = Elsewhere(fileno=there.detach())
        monkeypatch.setattr(socket, "create_connection", lambda *_: connection)
        with pytest.raises(UnreachableError, match=r"^localhost is 192\.0\.2\.7 here"):
            Gateway(transport_to("http://localhost:9090"), TOKEN).get("/v1/status")
        assert here.recv(100) == b""


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("https://g\u00e4teway.invalid", b"Host: xn--gteway-bua.invalid:443\r\n"),
        ("https://gw.example/\u00e4/b%2Fc", b"GET /%C3%A4/b%2Fc/v1/status HTTP/1.1\r\n"),
    ],
)
def test_letters_of_any_language_may_stand_in_a_url(url: str, line: bytes) -> None:
    way = transport_to(url)
    head = wire.Manner(way.host, way.base, "", True).request("GET", "/v1/status", None, None)
    assert line.replace(b":443", b"") in head


@pytest.mark.parametrize(
    "url",
    [
        "ssh://h/a%00b", "ssh://h/a%0Ab", "ssh://a%0Ab@h", "ssh://a%20b@h", "ssh://$(x)@h", "ssh://a;b@h", "ssh://h`x`",
        "ssh://a'b@h", "ssh://h|x", "ssh://%2DoProxyCommand=x@h", "ssh://-oProxyCommand=x", "https://\u00e4" + "a" * 70,
    ],
)  # fmt: skip
def test_what_cannot_be_a_name_is_refused_before_anybody_is_asked(gatectl: Gatectl, url: str) -> None:
    ended = gatectl("status", "--url", url, GATECTL_SSH="false")
    assert_one_line(ended, 2, "cannot be")


@pytest.mark.parametrize("name", ["gw", "gw.example", "10.0.0.1", "::1", "fe80::1%25eth0", "my_host", "DOM\\\\me@h"])
def test_names_of_ssh_may_be(name: str) -> None:
    assert Ssh("", name, None, "").argv()[-2] == name


def test_nobody_listens(gatectl: Gatectl) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        ended = gatectl("status", "--url", f"https://127.0.0.1:{port}")
    assert_one_line(ended, 6, f"nothing listens at 127.0.0.1 port {port}", "admin_listen")


def test_a_certificate_is_checked(gatectl: Gatectl, daemon: FakeDaemon, authority: trustme.CA, ca_file: str) -> None:
    now = datetime.now(UTC)
    day = timedelta(days=1)
    for certificate, trusted, parts in (
        (authority.issue_cert("127.0.0.1"), False, ("authority that is not trusted here", "--ca FILE")),
        (trustme.CA().issue_cert("127.0.0.1"), True, ("authority that is not trusted here",)),
        (authority.issue_cert("127.0.0.1", not_before=now - 2 * day, not_after=now - day), True, ("has expired",)),
        (authority.issue_cert("127.0.0.1", not_before=now + day, not_after=now + 2 * day), True, ("not valid yet",)),
        (authority.issue_cert("gw.example"), True, ("is for another name", "--url")),
    ):
        front = Front(daemon.path, context_of(certificate))
        ended = gatectl("status", "--url", front.url, *(["--ca", ca_file] if trusted else []))
        front.close()
        assert_one_line(ended, 6, f"the certificate of {front.url}", *parts)
    assert daemon.requests == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_tls_is_refused(gatectl: Gatectl, daemon: FakeDaemon, authority: trustme.CA, ca_file: str) -> None:
    old = context_of(authority.issue_cert("127.0.0.1"))
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    front = Front(daemon.path, old)
    ended = gatectl("status", "--url", front.url, "--ca", ca_file)
    front.close()
    assert_one_line(ended, 6, "TLS")


def test_tls_where_none_is_spoken_and_the_other_way_round(
    gatectl: Gatectl, daemon: FakeDaemon, front: Front, ca_file: str
) -> None:
    plain = Front(daemon.path)
    assert_one_line(gatectl("status", "--url", plain.url.replace("http:", "https:")), 6, "speaks no TLS")
    assert gatectl("service", "list", "--url", plain.url).code == 0
    plain.close()
    assert_one_line(gatectl("status", "--url", front.url.replace("https:", "http:")), 6)


@pytest.mark.parametrize(
    ("status", "code", "detail", "exit_code", "parts"),
    [
        (401, "unauthenticated", "the token has expired", 5, ("the token has expired", "gatectl token create")),
        (403, "not_permitted", "this takes the role admin", 5, ("takes the role admin", "take a token that may")),
        (429, "rate_limited", "too many failures", 1, ("too many failures",)),
    ],
)
def test_what_a_token_may_not(
    gatectl: Gatectl, daemon: FakeDaemon, front: Front, ca_file: str, monkeypatch: pytest.MonkeyPatch,
    status: int, code: str, detail: str, exit_code: int, parts: tuple[str, ...],
) -> None:  # fmt: skip
    def refuse(*_: object) -> None:
        raise ProblemError(status, code, detail)

    monkeypatch.setattr(daemon, "answer", refuse)
    ended = gatectl("status", "--url", front.url, "--ca", ca_file, GATECTL_TOKEN=TOKEN)
    assert_one_line(ended, exit_code, *parts)
    assert TOKEN not in ended.err


HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


@pytest.mark.parametrize(
    ("head", "exit_code", "said"),
    [
        (b"HTTP/1.1 502 Bad Gateway", 6, "answered 502, and not as a gateway does; a proxy stands before it"),
        (b"HTTP/1.1 404 Not Found", 6, "is no gateway; is that the address of admin_listen?"),
        (b"HTTP/1.1 200 OK", 6, "is no gateway; is that the address of admin_listen?"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://login.example/", 1, "sends one on to https://login.example/"),
    ],
)
def test_what_a_proxy_says(gatectl: Gatectl, folder: Path, head: bytes, exit_code: int, said: str) -> None:
    front = Front(folder / "proxy.sock")
    answer = head + b"\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(HTML) + HTML
    with answering(folder / "proxy.sock", answer):
        ended = gatectl("status", "--url", front.url)
    front.close()
    assert_one_line(ended, exit_code, said)


@pytest.fixture
def far(folder: Path) -> dict[str, str]:
    """An ssh that runs what it is told here, and a gatectl on the far side's PATH."""
    programs = folder / "bin"
    programs.mkdir()
    scripts = {
        "ssh": f'echo "$@" >> {folder}/ssh.log\nfor last; do :; done\necho "Welcome to gw"\nexec sh -c "$last"\n',
        "gatectl": f'exec {sys.executable} -m gatectl "$@"\n',
        "ssh-nobody": "echo 'ops@gw: Permission denied (publickey).' >&2\nexit 255\n",
        "ssh-bare": "echo 'sh: 1: gatectl: not found' >&2\nexit 127\n",
        "ssh-old": "echo \"gatectl: there is no noun 'relay'\" >&2\nexit 2\n",
        "ssh-chatty": "exec yes\n",
        "ssh-slow": f"echo > {folder}/asked\nexec sleep 60\n",
    }
    for name, text in scripts.items():
        (programs / name).write_text("#!/bin/sh\n" + text)
        (programs / name).chmod(stat.S_IRWXU)
    return {"PATH": f"{programs}:{os.environ['PATH']}", "GATECTL_SOCKET": ""}


def test_a_gateway_is_reached_by_ssh(gatectl: Gatectl, daemon: FakeDaemon, far: dict[str, str], folder: Path) -> None:
    url = f"ssh://ops@gw:2222{daemon.path}"
    assert gatectl("service", "list", "--url", url, **far) == gatectl("service", "list")
    removed = gatectl("service", "remove", "orders", "products", "--yes", "--url", url, **far)
    assert (removed.code, removed.err) == (0, f"gatectl: on {url}\n")
    log = (folder / "ssh.log").read_text().splitlines()
    assert log == [f"-T -o ConnectTimeout=15 -p 2222 ops@gw gatectl relay {daemon.path}"] * 2, "one login each"
    program = f"{folder}/bin/ssh -J bastion"
    assert gatectl("service", "list", "--url", url, **far, GATECTL_SSH=program).code == 0
    assert (folder / "ssh.log").read_text().splitlines()[-1].startswith("-J bastion -T")
    tail = gatectl("usage", "tail", "--url", url, **far)
    assert tail.out == gatectl("usage", "tail").out


def test_what_fails_by_ssh_says_where(gatectl: Gatectl, far: dict[str, str], folder: Path) -> None:
    url = f"ssh://ops@gw{folder}/none.sock"
    status = ("status", "--url", url)
    assert_one_line(gatectl(*status, **far), 6, f"on ops@gw: no gateway at {folder}/none.sock; start gatewayd there")
    denied = gatectl(*status, **far, GATECTL_SSH="ssh-nobody")
    assert denied.code == 6
    assert denied.err == (
        "ops@gw: Permission denied (publickey).\n"
        "gatectl: no ssh connection to ops@gw; what ssh said is above; 'ssh ops@gw true' has to work first\n"
    )
    assert "ops@gw has no gatectl on its PATH; link it there" in gatectl(*status, **far, GATECTL_SSH="ssh-bare").err
    assert "ended with 2 before it began" in gatectl(*status, **far, GATECTL_SSH="ssh-old").err
    assert_one_line(gatectl(*status, **far, GATECTL_SSH="ssh-chatty"), 6, "is no gatectl")
    assert_one_line(gatectl(*status, **far, GATECTL_SSH="no-such-ssh"), 6, "cannot run no-such-ssh", "GATECTL_SSH")


def test_a_far_gateway_that_goes_is_one_line(gatectl: Gatectl, far: dict[str, str], folder: Path) -> None:
    with answering(folder / "admin.sock", b"HTTP/1.1 200 OK\r\nContent-Le"):
        ended = gatectl("status", "--url", f"ssh://gw{folder}/admin.sock", **far)
    assert_one_line(ended, 6, "closed the connection before it had answered")


def test_ctrl_c_ends_a_login_and_its_ssh(gatectl: Gatectl, far: dict[str, str], folder: Path) -> None:
    process = subprocess.Popen(
        gatectl.argv("status", "--url", "ssh://gw"), env=gatectl.environment | far | {"GATECTL_SSH": "ssh-slow"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not (folder / "asked").exists():
        sleep(0.01)
    press_until_it_ends(process)
    assert process.communicate(timeout=30) == (b"", b""), "and nobody else holds its stderr any more"
    assert process.returncode == 130


def test_ctrl_c_while_ssh_is_being_started_ends_it_too(monkeypatch: pytest.MonkeyPatch, far: dict[str, str]) -> None:
    started = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            started.append(self)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    for name, value in (far | {"GATECTL_SSH": "ssh-slow"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KeyboardInterrupt):
        Ssh("", "gw", None, "").connect(5)
    assert started[0].returncode is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_relay_ends_when_either_side_does(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    def relay() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            gatectl.argv("relay", str(daemon.path)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    left = relay()
    assert left.communicate(b"", timeout=30) == (b"gatectl relay 1 0 \n", b"")
    assert left.returncode == 0
    answered = relay()
    assert answered.stdin is not None
    assert answered.stdout is not None
    answered.stdin.write(b"GET /v1/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answered.stdin.flush()
    assert b"HTTP/1.1 200 OK" in answered.stdout.read(), "to its end"
    assert answered.wait(30) == 0
    assert answered.communicate(timeout=30)[1] == b""


def test_a_connection_that_has_rested_is_not_trusted_with_a_change(daemon: FakeDaemon) -> None:
    gateway = Gateway(transport_to("http://127.0.0.1:1"))
    front = Front(daemon.path)
    gateway.transport = transport_to(front.url)
    for change, connections in ((False, 1), (True, 2)):
        gateway.get("/v1/services")
        gateway._kept[:] = [(connection, since - 3) for connection, since in gateway._kept]
        if change:
            gateway.post("/v1/explain", {"method": "GET", "path": "/"})
        assert front.connections == connections
    gateway.close()
    front.close()
