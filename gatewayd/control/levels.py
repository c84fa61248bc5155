"""The file of levels: how full every bucket is, so that a limit outlives the lessor that counts it.

A file of slots in the state folder, mapped into control's memory. The lessor stores each bucket that it has changed
before it tells anybody (1 to 2 us, no system call); like the journal, a store into a shared page outlives `kill -9` of
any process and not a power cut. Buckets that are full need no slot: theirs is used again.

    file    = header (64 bytes), then slots of 80 bytes each; grown by doubling, never shrunk
    header  = magic "GWL1", slot size u16, boot id 16 bytes, rest zero
    slot    = CRC-32 of the next 16 bytes, u32; scope u8, 3 bytes zero, id u32, client id u32, window in seconds u32;
              CRC-32 of those and of what follows, u32; limit u64, burst u64, level in whole tokens i64, the rest of it
              in token-nanoseconds u64, tokens away u64, monotonic time i64, wall-clock time i64 (ns); little-endian

A level of a long window does not fit 64 bits as token-nanoseconds, and must not be rounded: hence tokens and rest.

What is damaged counts as empty, never as full: a slot whose second checksum is wrong (its store was cut short), and
where the header is, every bucket there may have been. A slot whose first checksum is wrong was being given out; no
token of it had left.

Time: while the machine is up, CLOCK_MONOTONIC says how long ago a level was true; it knows no steps. After a boot it
has begun anew, and what has passed is what the wall clock says, but nothing if that went back, and the time since the
boot at least. If it jumped forward the bucket may be full too early: that is one burst, once in a boot, and the
alternative is to refuse a customer for a day because the machine was off for one.
"""

from __future__ import annotations

import logging
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from zlib import crc32

from gatewayd.conf import RateConf
from gatewayd.policy.accounts import Account
from gatewayd.policy.buckets import NANOS, Bucket

FILE_NAME = "levels"
SLOT_BYTES = 80
HEADER_BYTES = 64
FIRST_SLOTS = 1024

_MAGIC = b"GWL1"
_HEADER = Struct("<4sH16s")
_CRC = Struct("<I")
_NAME = Struct("<B3xIII")
_STATE = Struct("<QQqQQqq")
_NAME_AT = _CRC.size
_STATE_CRC_AT = _NAME_AT + _NAME.size
_STATE_AT = _STATE_CRC_AT + _CRC.size
_SCOPES = ("key", "client", "route", "tenant")
_NUMBERS = {scope: number for number, scope in enumerate(_SCOPES, 1)}
_EMPTY = bytes(SLOT_BYTES)

log = logging.getLogger(__name__)


def boot_id() -> bytes:
    """Another one after each boot."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return os.urandom(16)  # then every start counts as a boot


class LevelFile:
    """The `leases.Levels` of control. Raises OSError only from the constructor."""

    def __init__(self, folder: Path, now_ns: int, boot: bytes, wall_clock: Callable[[], int] = time.time_ns) -> None:
        self._now_ns, self._wall_ns = now_ns, wall_clock()  # when it was opened
        self._wall_clock = wall_clock
        self._path = folder / FILE_NAME
        self._names: dict[bytes, int] = {}  # of slots that nobody has asked for yet
        self._settled: dict[bytes, Bucket] = {}  # likewise; these have changed since the file was opened
        self._free: list[int] = []
        self._is_damaged = False
        self._saves = True
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._descriptor).st_size
        self._slots = max(0, size - HEADER_BYTES) // SLOT_BYTES
        if size == 0:
            self._same_boot = True
            self._grow(FIRST_SLOTS)
        else:
            self._map = mmap.mmap(self._descriptor, size)
            magic, slot_bytes, booted = _HEADER.unpack_from(self._map) if size >= HEADER_BYTES else (b"", 0, b"")
            self._same_boot = booted == boot
            if (magic, slot_bytes) == (_MAGIC, SLOT_BYTES):
                self._read()
            else:
                self._begin_again()
        self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, SLOT_BYTES, boot)

    def __repr__(self) -> str:
        return f"<LevelFile {self._slots} slots, {len(self._free)} free>"

    def close(self) -> None:
        self._map.close()
        os.close(self._descriptor)

    # The lessor's.

    def find(self, account: Account, rate: RateConf, now_ns: int) -> Bucket | None:
        name = _name(account, rate.window_s)
        settled = self._settled.pop(name, None)
        if settled is not None:
            return settled
        place = self._names.pop(name, None)
        if place is not None:
            return self._bucket(place, rate)
        if self._is_damaged:  # it may have been on the file, and empty
            return Bucket(rate.limit, rate.window_s * NANOS, rate.burst, 0, self._now_ns)
        return None

    def save(self, account: Account, bucket: Bucket) -> None:
        if bucket.place >= 0 or self._take_place(account, bucket):
            self._store(bucket)

    def _store(self, bucket: Bucket) -> None:
        offset = HEADER_BYTES + bucket.place * SLOT_BYTES
        whole, rest = divmod(bucket.level, bucket.window_ns)
        state = _STATE.pack(
            bucket.limit, bucket.burst, whole, rest, bucket.away + bucket.unclaimed, bucket.stamp_ns,
            self._wall_clock(),
        )  # fmt: skip
        name = self._map[offset + _NAME_AT : offset + _STATE_CRC_AT]
        self._map[offset + _STATE_CRC_AT : offset + SLOT_BYTES] = _CRC.pack(crc32(state, crc32(name))) + state

    def release(self, bucket: Bucket) -> None:
        if bucket.place >= 0:
            self._clear(bucket.place)
            bucket.place = -1

    def forget_full(self, now_ns: int) -> None:
        """Use the slots again of buckets that nobody has asked for and that have filled up since.

        What was away of the others is spent, at the latest now; from now on its room is refilled.
        """
        for name, place in list(self._names.items()):
            if not self._is_whole(place):
                continue
            bucket = self._stored(place, _NAME.unpack(name)[3] * NANOS)
            bucket.refill(now_ns)
            if bucket.level >= bucket.burst * bucket.window_ns:
                del self._names[name]
                self._clear(place)
            elif bucket.unclaimed:
                bucket.unclaimed = 0
                self._store(bucket)
                del self._names[name]
                self._settled[name] = bucket

    # Slots.

    def _take_place(self, account: Account, bucket: Bucket) -> bool:
        if not self._free:
            try:
                self._grow(self._slots * 2)
            except OSError as error:
                if self._saves:  # once: it is tried again with every grant
                    log.error("levels of limits cannot be saved, a crash would forget them: %s", error.strerror)
                self._saves = False
                return False
        self._saves = True
        bucket.place = self._free.pop()
        offset = HEADER_BYTES + bucket.place * SLOT_BYTES
        name = _name(account, bucket.window_ns // NANOS)
        self._map[offset : offset + _STATE_CRC_AT] = _CRC.pack(crc32(name)) + name
        return True

    def _grow(self, slots: int) -> None:
        size = HEADER_BYTES + slots * SLOT_BYTES
        before = self._slots
        # Real blocks, not a hole: storing into a mapped hole on a full disk is SIGBUS.
        os.posix_fallocate(self._descriptor, 0, size)
        if before:
            self._map.close()
        self._map = mmap.mmap(self._descriptor, size)
        self._slots = slots
        self._free += range(slots - 1, before - 1, -1)

    def _begin_again(self) -> None:
        log.error("%s is damaged: every limit begins empty and fills up from now on", self._path)
        self._is_damaged = True
        self._map.close()
        os.ftruncate(self._descriptor, 0)
        self._slots = 0
        self._grow(FIRST_SLOTS)

    def _read(self) -> None:
        """Whose slots these are. What they hold is read once it is asked for."""
        for place in range(self._slots):
            offset = HEADER_BYTES + place * SLOT_BYTES
            name = self._map[offset + _NAME_AT : offset + _STATE_CRC_AT]
            (crc,) = _CRC.unpack_from(self._map, offset)
            if (
                crc == crc32(name)
                and 1 <= name[0] <= len(_SCOPES)
                and _NAME.unpack(name)[3]
                and name not in self._names
            ):
                self._names[name] = place
            else:
                self._clear(place)
        self._free.reverse()

    def _clear(self, place: int) -> None:
        offset = HEADER_BYTES + place * SLOT_BYTES
        self._map[offset : offset + SLOT_BYTES] = _EMPTY
        self._free.append(place)

    def _state(self, place: int) -> tuple[int, int, int, int, int, int, int]:
        return _STATE.unpack_from(self._map, HEADER_BYTES + place * SLOT_BYTES + _STATE_AT)

    def _is_whole(self, place: int) -> bool:
        offset = HEADER_BYTES + place * SLOT_BYTES
        name = self._map[offset + _NAME_AT : offset + _STATE_CRC_AT]
        state = self._map[offset + _STATE_AT : offset + SLOT_BYTES]
        return bool(_CRC.unpack_from(self._map, offset + _STATE_CRC_AT)[0] == crc32(state, crc32(name)))

    def _bucket(self, place: int, rate: RateConf) -> Bucket:
        window_ns = rate.window_s * NANOS
        if not self._is_whole(place):
            log.warning("the level of a limit was cut short by a crash: it begins empty")
            return Bucket(rate.limit, window_ns, rate.burst, 0, self._now_ns, place=place)
        return self._stored(place, window_ns)

    def _stored(self, place: int, window_ns: int) -> Bucket:
        limit, burst, whole, rest, away, stamp_ns, wall_ns = self._state(place)
        level = whole * window_ns + rest
        return Bucket(limit, window_ns, burst, level, self._stamp(stamp_ns, wall_ns), unclaimed=away, place=place)

    def _stamp(self, stamp_ns: int, wall_ns: int) -> int:
        """When a level was true, on the monotonic clock of now."""
        if self._same_boot and stamp_ns <= self._now_ns:
            return stamp_ns
        return min(0, self._now_ns - (self._wall_ns - wall_ns))


def _name(account: Account, window_s: int) -> bytes:
    return _NAME.pack(_NUMBERS[account.scope], account.id, account.client_id, window_s)
