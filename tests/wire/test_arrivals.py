"""Connections that begin with TLS or a PROXY header, in this process: what a test from outside needs luck to meet."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest
import trustme

from gatewayd.listener_tls import ListenerTls, TlsFiles
from gatewayd.proxy.arrival import first_protocol
from gatewayd.proxy.encrypted import EncryptedConnection
from tests.wire.harness import GET, Wire
from tests.wire.peer import Peer

pytestmark = pytest.mark.anyio


async def test_the_sweeper_may_look_before_the_loop_has_told_of_the_end(tmp_path: Path) -> None:
    """uvloop closes the descriptor of a TLS connection a turn before it tells of it. An error would end the sweeper."""
    issued = trustme.CA().issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with Wire(tmp_path, tls_cert=cert, tls_key=key) as wire:
        wire.worker.door.admit = first_protocol(wire.worker, ListenerTls(TlsFiles(cert, key)))
        client = Peer(*await asyncio.open_connection("127.0.0.1", wire.port, ssl=context))
        wire.clients.append(client)
        await client.send(GET)
        assert (await client.message()).status == 200
        (connection,) = wire.state.connections
        assert isinstance(connection, EncryptedConnection)
        client.cut()
        await wire.settled(lambda: not wire.state.connections)
        for later_s in (0.0, 3.0, 3600.0):
            connection.check_time(wire.worker.now() + later_s)


async def test_a_silent_connection_that_comes_during_the_drain_does_not_hold_it_up(tmp_path: Path) -> None:
    async with Wire(tmp_path, proxy_protocol=True) as wire:
        wire.worker.door.admit = first_protocol(wire.worker, None)
        wire.worker.drain()
        silent = await wire.client()
        began = time.monotonic()
        assert await silent.rest() == b""
        assert time.monotonic() - began < 2
