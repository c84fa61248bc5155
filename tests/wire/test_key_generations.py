"""A key on the wire that was rotated, disabled or imported."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from gatewayd.channel import FindKey, KeyFound, KeysChanged, SnapshotChanged
from gatewayd.conf import KeyConf, OlderConf, TenantConf
from gatewayd.errors import INVALID_KEY
from gatewayd.keys import digest, name_of_digest, new_key
from tests.wire.harness import Wire, services

pytestmark = pytest.mark.anyio

OLD, NEW = new_key("bbbbbbbb")[1].encode(), new_key("bbbbbbbb")[1].encode()
NOW_S = time.time_ns() / 1e9
FOREIGN = b"sk_live_1234567890abcdef"


def rotated(*older: OlderConf, **more: Any) -> KeyConf:
    fields: dict[str, Any] = {"generation": 2, "older": older} | more
    return KeyConf(8, "bbbbbbbb", digest(NEW), 1, None, False, None, (), None, 3, **fields)


def get(key: bytes, path: bytes = b"/keyed/") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: api\r\nX-API-Key: " + key + b"\r\n\r\n"


def know(wire: Wire, conf: KeyConf, name: str = "bbbbbbbb") -> None:
    wire.worker._on_message(KeyFound(name, conf))


async def code(wire: Wire, key: bytes) -> tuple[int, str | None]:
    answer = await wire.ask(get(key))
    return answer.status, json.loads(answer.body)["code"] if answer.status != 200 else None


async def test_both_generations_work_and_the_record_says_which(tmp_path: Path) -> None:
    async with Wire(tmp_path) as wire:
        know(wire, rotated(OlderConf(1, digest(OLD), NOW_S + 3600)))
        client = await wire.client()
        for key in (OLD, NEW, NEW, OLD, OLD):  # on one connection too, whose fields are read once
            await client.send(get(key))
            assert (await client.message()).status == 200
        assert (await wire.ask(get(wire.key))).status == 200
        assert [record.generation for record in wire.records()] == [1, 2, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("older", "expected"),
    [
        (OlderConf(1, digest(OLD), NOW_S + 3600), (200, None)),
        (OlderConf(1, digest(OLD), None), (200, None)),
        (OlderConf(1, digest(OLD), NOW_S - 1), (401, "expired_key")),
        (OlderConf(1, digest(OLD), NOW_S + 3600, ended=True), (401, "revoked_key")),
        (OlderConf(1, digest(b"another"), None), (401, "invalid_key")),
    ],
)
async def test_an_older_secret(tmp_path: Path, older: OlderConf, expected: tuple[int, str | None]) -> None:
    async with Wire(tmp_path) as wire:
        know(wire, rotated(older))
        assert await code(wire, OLD) == expected
        assert await code(wire, NEW) == (200, None)


async def test_an_overlap_ends_on_a_connection_that_goes_on(tmp_path: Path) -> None:
    async with Wire(tmp_path) as wire:
        know(wire, rotated(OlderConf(1, digest(OLD), time.time_ns() / 1e9 + 0.2)))
        client = await wire.client()
        statuses = []
        while 401 not in statuses:
            await client.send(get(OLD))
            statuses.append((await client.message()).status)
        assert statuses[0] == 200


async def test_a_disabled_key_says_so(tmp_path: Path) -> None:
    async with Wire(tmp_path) as wire:
        know(wire, rotated(disabled=True))
        assert await code(wire, NEW) == (401, "disabled_key")


def with_imported_keys(wire: Wire, imported: bool = True) -> list[Any]:
    """What the worker says to control from now on."""
    sent: list[Any] = []
    wire.worker.keys.look_ups._send = sent.append
    confs = services(f"http://127.0.0.1:{wire.upstream.port}")
    wire.worker._on_message(SnapshotChanged(1, (TenantConf(1, "default", False, imported_keys=imported),), confs))
    return sent


def imported(secret: bytes = FOREIGN, **more: Any) -> KeyConf:
    return KeyConf(9, "cccccccc", digest(secret), 1, None, False, None, (), None, 3, **more)


async def test_an_imported_key_is_asked_for_by_its_digest(tmp_path: Path) -> None:
    async with Wire(tmp_path) as wire:
        sent = with_imported_keys(wire)
        name = name_of_digest(digest(FOREIGN))
        client = await wire.client()
        await client.send(get(FOREIGN))
        await wire.settled(lambda: sent == [FindKey(name)])
        know(wire, imported(), name)
        assert (await client.message()).status == 200
        await client.send(get(FOREIGN))
        assert (await client.message()).status == 200
        assert (await wire.ask(get(FOREIGN))).status == 200
        assert sent == [FindKey(name)]
        assert {record.key for record in wire.records()} == {9}


@pytest.mark.parametrize("forget", [("cccccccc",), None])
async def test_a_revoked_imported_key_is_looked_up_again(tmp_path: Path, forget: tuple[str, ...] | None) -> None:
    async with Wire(tmp_path) as wire:
        sent = with_imported_keys(wire)
        name = name_of_digest(digest(FOREIGN))
        know(wire, imported(), name)
        assert await code(wire, FOREIGN) == (200, None)
        wire.worker.keys.forget(forget)
        client = await wire.client()
        await client.send(get(FOREIGN))
        await wire.settled(lambda: sent == [FindKey(name)])
        know(wire, KeyConf(9, "cccccccc", digest(FOREIGN), 1, None, True, None, (), None, 3), name)
        assert json.loads((await client.message()).body)["code"] == "revoked_key"


async def test_what_is_like_a_known_key_in_the_middle_is_looked_up_by_its_digest_too(tmp_path: Path) -> None:
    """Where keys of ours have their public id, that of another may stand by accident."""
    async with Wire(tmp_path) as wire:
        sent = with_imported_keys(wire)
        know(wire, rotated())
        secret = b"sk-bbbbbbbb-1234567890abcdef"
        client = await wire.client()
        await client.send(get(secret))
        name = name_of_digest(digest(secret))
        await wire.settled(lambda: sent == [FindKey(name)])
        know(wire, imported(secret), name)
        assert (await client.message()).status == 200


@pytest.mark.parametrize("secret", [b"tooshort", b"x" * 513, b"with space in the middle", "schlüssel-1234567".encode()])
async def test_what_no_imported_key_can_be_is_not_looked_up(tmp_path: Path, secret: bytes) -> None:
    async with Wire(tmp_path) as wire:
        sent = with_imported_keys(wire)
        assert await code(wire, secret) == (401, "invalid_key")
        assert sent == []


async def test_without_imported_keys_nothing_is_looked_up_by_digest(tmp_path: Path) -> None:
    async with Wire(tmp_path) as wire:
        sent = with_imported_keys(wire, imported=False)
        assert await code(wire, FOREIGN) == (401, "invalid_key")
        assert sent == []


async def test_an_import_ends_what_was_known_to_be_no_key(tmp_path: Path) -> None:
    async with Wire(tmp_path) as wire:
        sent = with_imported_keys(wire)
        name = name_of_digest(digest(FOREIGN))
        client = await wire.client()
        await client.send(get(FOREIGN))
        await wire.settled(lambda: sent == [FindKey(name)])
        wire.worker._on_message(KeyFound(name, None))
        assert (await client.message()).status == 401
        assert await code(wire, FOREIGN) == (401, "invalid_key")  # remembered
        with_imported_keys(wire)
        wire.worker.keys.look_ups._send = sent.append
        await client.send(get(FOREIGN))
        await wire.settled(lambda: sent == [FindKey(name)] * 2)
        know(wire, imported(), name)
        assert (await client.message()).status == 200


async def test_an_imported_key_that_was_rotated_is_one_key_under_two_names(tmp_path: Path) -> None:
    async with Wire(tmp_path) as wire:
        with_imported_keys(wire)
        conf = rotated(OlderConf(1, digest(FOREIGN), NOW_S + 3600))
        know(wire, conf, name_of_digest(digest(FOREIGN)))
        know(wire, conf)
        assert [(await code(wire, key))[0] for key in (FOREIGN, NEW)] == [200, 200]
        assert {(record.key, record.generation) for record in wire.records()} == {(8, 1), (8, 2)}
        wire.worker._on_message(KeysChanged(2, ("bbbbbbbb",)))
        assert set(wire.worker.keys.entries) == {wire.key[3:11].decode()}


@pytest.mark.parametrize("header", [b"X-API-Key: ", b"Authorization: Bearer "])
async def test_an_imported_key_goes_no_further(tmp_path: Path, header: bytes) -> None:
    """It is a credential wherever it was read from, though it does not look like one of ours."""
    async with Wire(tmp_path) as wire:
        sent = with_imported_keys(wire)
        client = await wire.client()
        await client.send(b"GET /keyed/ HTTP/1.1\r\nHost: api\r\n" + header + FOREIGN + b"\r\n\r\n")
        await wire.settled(lambda: bool(sent))
        know(wire, imported(), name_of_digest(digest(FOREIGN)))
        assert (await client.message()).status == 200
        assert FOREIGN not in wire.upstream.received


async def test_what_a_mistyped_key_is_remembered_by(tmp_path: Path) -> None:
    """It is looked up by its digest, which is nobody's name and tells of the secret."""
    async with Wire(tmp_path) as wire:
        sent = with_imported_keys(wire)
        mistyped = OLD[:-1] + (b"0" if OLD[-1:] != b"0" else b"1")
        client = await wire.client()
        await client.send(get(mistyped))
        await wire.settled(lambda: bool(sent))
        wire.worker._on_message(KeyFound(name_of_digest(digest(mistyped)), None))
        assert (await client.message()).status == 401
        (kept,) = wire.worker.recent._refused[INVALID_KEY.number]
        assert kept[9] == "bbbbbbbb"
