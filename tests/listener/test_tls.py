"""The TLS listener as its clients and its operator meet it."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from gatewayd.listener_tls import CHECK_S
from gatewayd.proxy.client import LINGER_S
from tests.listener.conftest import MIB, Door, NewDoor, Pki, Telling, answer_of, doors, wait_until

GET = b"GET /api/ HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def door(new_door: NewDoor, pki: Pki) -> Door:
    return new_door(*pki.options)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, upstream: str) -> Iterator[Door]:
    """For those that leave it as it was: a gateway takes two seconds to come and go."""
    folder = tmp_path_factory.mktemp("shared")
    pki = Pki(folder)
    with doors(folder, pki, upstream) as start:
        yield start(*pki.options)


def test_curl_and_what_the_upstream_is_told(shared: Door) -> None:
    assert shared.url.startswith("https://127.0.0.1:")
    assert shared.gateway.gatectl.json("service", "show", "api")["url"] == f"{shared.url}/api/"
    assert shared.gateway.gatectl.json("status")["url"] == shared.url
    told = shared.told("--http2", "-H", "Client-Cert: :aWNo:", "-H", "Client_Cert_Chain: :aWNo:")  # h2 is not taken up
    assert told["x-forwarded-proto"] == "https"
    assert told["forwarded"] == f'for=127.0.0.1;host="127.0.0.1:{shared.port}";proto=https'
    assert not [name for name in told if name.startswith("client")]


def test_versions_and_alpn(shared: Door) -> None:
    context = shared.pki.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with context.wrap_socket(shared.connect(), server_hostname="localhost") as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"
        assert connection.version() == "TLSv1.3"
    context = shared.pki.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(shared.connect(), server_hostname="localhost") as connection:
        connection.sendall(GET)
        assert answer_of(connection)[0] == 200
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(shared.connect(), server_hostname="localhost")


def test_a_mebibyte_both_ways(shared: Door) -> None:
    with shared.encrypted() as connection:
        body = bytes(range(256)) * 4096
        connection.sendall(b"POST /api/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert answer_of(connection) == (200, body)
        connection.sendall(b"GET /api/big HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer_of(connection) == (200, b"x" * MIB)


def test_pipelined_and_piece_by_piece(shared: Door) -> None:
    with shared.encrypted() as connection:
        for index in range(len(GET)):
            connection.sendall(GET[index : index + 1])
        assert answer_of(connection)[0] == 200
        connection.sendall(GET * 2 + b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = b""
        while piece := connection.recv(65536):  # until close_notify: without it, this raises
            received += piece
        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert b"HTTP/1.1 404" in received


def test_an_early_refusal_reaches_a_client_that_is_sending_its_body(shared: Door) -> None:
    for body in (2 * MIB, 200 * MIB):
        with shared.encrypted() as connection:
            connection.sendall(b"POST /small/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % body)
            with contextlib.suppress(OSError):
                for _ in range(128):
                    connection.sendall(b"x" * 16384)
            assert answer_of(connection)[0] == 413
            assert connection.recv(1) == b""


def test_a_slow_reader_gets_all_of_the_last_answer(shared: Door) -> None:
    """Longer than a connection that is done lingers, and than the sweeper takes to see it."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(10)
    raw.connect(("127.0.0.1", shared.port))
    with shared.pki.context().wrap_socket(raw, server_hostname="localhost") as connection:
        body = b"x" * 60_000  # the gateway is done with it at once, the kernel is not
        head = b"POST /api/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        time.sleep(LINGER_S + 2)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        assert received.endswith(b"\r\n\r\n" + body)


def test_what_is_no_handshake_ends_quietly(door: Door) -> None:
    for sent in (GET, b"\x16\x03\x01\xff\xff" + b"\0" * 400, b"\0", b""):
        with door.connect(sent) as connection:
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in connection.recv(100)
    for _ in range(20):  # gone in the middle of it
        with door.connect(b"\x16\x03\x01") as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(door.connect(), server_hostname="localhost")
    assert door.told()
    wait_until(lambda: "the TLS handshake failed (http request)" in door.log)
    assert door.log.count("the TLS handshake failed") == 1


def test_clients_that_leave_in_every_way(shared: Door) -> None:
    with shared.encrypted() as connection:  # close_notify with a request under way
        Telling.slow_began.clear()
        connection.sendall(b"GET /api/slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert Telling.slow_began.wait(10)
        with contextlib.suppress(OSError):
            connection.unwrap()
    with shared.encrypted() as connection:  # no close_notify
        connection.sendall(b"GET /api/slow HTTP/1.1\r\nHost: a\r\n\r\n")
    with shared.encrypted() as connection:  # a reset in the middle of a large answer
        connection.sendall(b"GET /api/big HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: shared.gateway.gatectl.json("status")["workers"][0]["connections"] == 0)


def test_a_stalled_handshake_is_ended(new_door: NewDoor, pki: Pki) -> None:
    door = new_door(*pki.options, settings="head_timeout_s = 1")
    with door.connect(b"\x16\x03\x01\x02") as connection:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""
        assert 0.5 < time.monotonic() - began < 4
    wait_until(lambda: door.gateway.gatectl.json("status")["workers"][0]["connections"] == 0)


def test_a_drain_finishes_what_is_in_flight(door: Door) -> None:
    results: list[tuple[int, bytes]] = []
    busy, idle = door.encrypted(), door.encrypted()
    starting = door.connect()

    def call() -> None:
        busy.sendall(b"GET /api/slow HTTP/1.1\r\nHost: a\r\n\r\n")
        results.append(answer_of(busy))

    caller = threading.Thread(target=call)
    Telling.slow_began.clear()
    caller.start()
    assert Telling.slow_began.wait(10)
    door.terminate()
    time.sleep(0.05)
    with starting, door.pki.context().wrap_socket(starting, server_hostname="localhost") as late:
        late.sendall(GET)  # its handshake had not begun when the drain did
        assert answer_of(late)[0] == 200
        assert late.recv(1) == b""
    assert idle.recv(1) == b""
    caller.join(10)
    assert [status for status, _ in results] == [200]
    busy.close()
    idle.close()
    assert door.gateway.daemon.process.wait(10) == 0


# Renewal.


def serial_of(door: Door) -> str:
    with door.encrypted() as connection:
        certificate = connection.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def test_a_renewed_certificate_is_taken_up_and_no_connection_dropped(door: Door) -> None:
    before = serial_of(door)
    with door.encrypted() as kept:
        kept.sendall(GET)
        assert answer_of(kept)[0] == 200
        door.pki.renew()
        wait_until(lambda: serial_of(door) != before)
        kept.sendall(GET)
        assert answer_of(kept)[0] == 200
        certificate = kept.getpeercert()
        assert certificate is not None
        assert certificate["serialNumber"] == before
    wait_until(lambda: "took up the renewed certificate" in door.log)


def test_a_broken_pair_changes_nothing_and_is_told_once(door: Door) -> None:
    before = serial_of(door)
    good = door.pki.key.read_bytes()
    door.pki.key.write_bytes(trustme.CA().issue_cert("other").private_key_pem.bytes())  # half of a renewal
    wait_until(lambda: "is not the key of" in door.log)
    door.pki.cert.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
    wait_until(lambda: "holds no certificate in PEM form" in door.log)
    time.sleep(CHECK_S + 1)
    assert door.log.count("the certificate in use stays") == 2
    assert serial_of(door) == before
    door.pki.key.write_bytes(good)
    door.pki.renew()
    wait_until(lambda: serial_of(door) != before)


def test_sighup_takes_it_up_and_a_broken_one_leaves_the_workers(door: Door) -> None:
    before = serial_of(door)
    _, replaced = door.gateway.pids()
    door.pki.renew()
    door.roll()
    wait_until(lambda: not Path(f"/proc/{replaced}").exists())  # until then it may accept a last connection
    assert serial_of(door) != before
    with door.encrypted() as kept:
        door.pki.key.write_text("")
        door.gateway.daemon.process.send_signal(1)
        wait_until(lambda: "the workers that are left serve on" in door.log)
        kept.sendall(GET)
        assert answer_of(kept)[0] == 200
    assert "holds no private key in PEM form" in door.log


# Client certificates.


@pytest.mark.parametrize("wanted", ["none", "optional", "required"])
def test_client_certificates(wanted: str, new_door: NewDoor, pki: Pki) -> None:
    authority = f'tls_client_ca = "{pki.client_ca}"\n' if wanted != "none" else ""
    door = new_door(*pki.options, settings=f'{authority}tls_client_auth = "{wanted}"')
    shown = door.told("--cert", str(pki.client_pair), "-H", "Client-Cert: :aWNo:")
    if wanted == "none":
        assert "client-cert" not in shown
    else:
        field = shown["client-cert"]
        pem = pki.client_pair.read_text()
        der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERT") :])
        assert (field[0], base64.b64decode(field[1:-1]), field[-1]) == (":", der, ":")
    without = door.curl("/api/", "-H", "Client-Cert: :aWNo:")
    stranger = door.curl("/api/", "--cert", str(pki.stranger_pair))
    assert (without.returncode == 0) == (wanted != "required")
    assert (stranger.returncode == 0) == (wanted == "none")
    if wanted != "required":
        assert "client-cert" not in dict(json.loads(without.stdout))


# What keeps it from starting is in `test_settings`.


def test_over_ipv6(new_door: NewDoor, pki: Pki) -> None:
    door = new_door(*pki.options, listen="[::]:0")
    with pki.context().wrap_socket(door.connect(host="::1"), server_hostname="::1") as connection:
        connection.sendall(GET)
        assert ["X-Forwarded-For", "::1"] in json.loads(answer_of(connection)[1])
    with door.encrypted() as connection:
        connection.sendall(GET)
        assert ["X-Forwarded-For", "127.0.0.1"] in json.loads(answer_of(connection)[1])


def test_a_key_that_is_encrypted_does_not_ask(pki: Pki, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    from gatewayd.errors import StartupError
    from gatewayd.listener_tls import TlsFiles, listener_context
    from gatewayd.settings import Settings

    key = load_pem_private_key(pki.key.read_bytes(), None)
    pki.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")))
    settings = Settings(state_dir=tmp_path, admin_socket=tmp_path / "s", tls_cert=pki.cert, tls_key=pki.key)
    files = TlsFiles.of_data_plane(settings)
    assert files is not None
    with pytest.raises(StartupError, match="is encrypted"):
        listener_context(files)
