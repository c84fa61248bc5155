"""`gatewayd journal FILE`: what a segment says, for people and for programs. The format stands in `records`.

Reads as control does, one slot after the other up to the first empty one, and counts what control would drop. It needs
no database and no daemon: ids stay ids. A segment may be in use meanwhile, cut anywhere, or no segment at all.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gatewayd.errors import BY_NUMBER
from gatewayd.records import (
    ADMITTED,
    CLIENT_LEFT,
    MORE_BYTES,
    SLOT_BYTES,
    UPSTREAM_BROKE,
    VERSION,
    WOULD_REFUSE,
    NotASegmentError,
    Record,
    SegmentHeader,
    is_empty,
    unpack_header,
    unpack_records,
    version_of,
)

_STEP_SLOTS = 1024
_FLAGS = {
    ADMITTED: "admitted",
    CLIENT_LEFT: "client-left",
    UPSTREAM_BROKE: "upstream-broke",
    WOULD_REFUSE: "would-refuse",
    MORE_BYTES: "more-bytes",
}
HEADING = (
    f"{'time':<27} {'tenant':>6} {'service':>7} {'route':>6} {'key':>7} {'gen':>3} {'client':>6} {'price':>6} "
    f"{'status':>6} {'units':>5} {'in':>9} {'out':>9} {'gateway us':>10} {'upstream us':>11}  {'request':<16} says"
)


@dataclass
class Found:
    """What a file holds. Known once its records have been read."""

    size_bytes: int = 0
    is_in_use: bool = False  # its writer lives
    header: SegmentHeader | None = None
    records: int = 0
    torn: int = 0  # slots with a wrong checksum, or cut short by the end of the file
    in_the_making: int = 0  # the same, as the last slot of a segment that is in use
    strange_bytes: int = 0  # not understood: no segment, another version, or something behind the end
    missing_bytes: int = 0  # that a segment of its header would have

    @property
    def is_damaged(self) -> bool:
        return self.header is None or bool(self.torn or self.strange_bytes or self.missing_bytes)

    def __str__(self) -> str:
        said = [_count(self.records, "record"), _count(self.torn, "torn slot")]
        said.append(f"{_count(self.strange_bytes, 'byte')} not understood")
        if self.in_the_making:
            said.append("1 record in the making")
        if self.missing_bytes:
            said.append(f"cut short by {_count(self.missing_bytes, 'byte')}")
        return ", ".join(said)


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def open_segment(path: Path) -> tuple[int, Found]:
    """A descriptor, and what can be said at once. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait for its writer
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("it is no file")
        found = Found(facts.st_size, _is_in_use(descriptor))
        try:
            found.header = unpack_header(os.pread(descriptor, SLOT_BYTES, 0))
        except NotASegmentError:
            found.strange_bytes = found.size_bytes
        else:
            found.missing_bytes = max(0, (found.header.slots + 1) * SLOT_BYTES - found.size_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found


def _is_in_use(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def read_records(descriptor: int, found: Found) -> Iterator[tuple[int, Record | None]]:
    """Each slot that is not empty, by its number, with its record or none; counted in `found`."""
    if found.header is None:
        return
    number, ended = 0, False
    while data := os.pread(descriptor, _STEP_SLOTS * SLOT_BYTES, (number + 1) * SLOT_BYTES):
        for offset in range(0, len(data), SLOT_BYTES):
            slot = data[offset : offset + SLOT_BYTES]
            if ended:
                found.strange_bytes += len(slot) if any(slot) else 0
            elif is_empty(slot):
                if found.is_in_use:  # what stands behind it in the next step has been stored meanwhile
                    return
                ended = True
                found.strange_bytes += len(slot) if any(slot) else 0
            else:
                yield number, _record_of(descriptor, number, slot, found)
            number += 1


def _record_of(descriptor: int, number: int, slot: bytes, found: Found) -> Record | None:
    records, _ = unpack_records(slot)
    if not records and found.is_in_use:  # seen half: it may be whole by now, and if not it is the last one
        slot, after = (os.pread(descriptor, SLOT_BYTES, (number + 1 + n) * SLOT_BYTES) for n in range(2))
        records, _ = unpack_records(slot)
        if not records and (not after or is_empty(after)):
            found.in_the_making += 1
            return None
    if not records:
        found.torn += 1
    elif version_of(slot) != VERSION:
        found.strange_bytes += SLOT_BYTES
    else:
        found.records += 1
        return records[0]
    return None


# What is printed.


def print_segments(files: list[Path], *, as_json: bool) -> int:
    """Returns the exit status: 0, or 1 if one of the files is damaged or cannot be read."""
    status = 0
    try:
        for path in files:
            try:
                descriptor, found = open_segment(path)
            except OSError as error:
                print(f"gatewayd: {_printable(str(path))}: {_reason(error)}", file=sys.stderr)  # noqa: T201
                status = 1
                continue
            try:
                lines = _json_lines if as_json else _text_lines
                for line in lines(path, descriptor, found):
                    sys.stdout.write(line + "\n")
            finally:
                os.close(descriptor)
            status = status or int(found.is_damaged)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has read enough; and nothing more is said when Python closes standard output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _text_lines(path: Path, descriptor: int, found: Found) -> Iterator[str]:
    yield f"{_printable(str(path))}: {_introduction(found)}"
    if found.header is not None:
        yield HEADING
    for number, record in read_records(descriptor, found):
        yield f"slot {number}: not a record" if record is None else _row(record)
    yield str(found)


def _introduction(found: Found) -> str:
    header = found.header
    if header is None:
        return "not a journal segment"
    use = "in use" if found.is_in_use else "not in use"
    return f"worker {header.worker_id.hex()}, begun {_time(header.created_ns)}, {header.slots} slots, {use}"


def _row(r: Record) -> str:
    says = _flag_names(r.flags)
    if r.problem:
        says.insert(0, _problem(r.problem))
    return (
        f"{_time(r.time_ns)} {r.tenant:>6} {r.service:>7} {r.route:>6} {r.key:>7} {r.generation:>3} {r.client:>6} "
        f"{r.price:>6} {r.status:>6} {r.units:>5} {r.bytes_in:>9} {r.bytes_out:>9} {r.gateway_us:>10} "
        f"{r.upstream_us:>11}  {_request_id(r):<16} {' '.join(says)}"
    ).rstrip()


def _json_lines(path: Path, descriptor: int, found: Found) -> Iterator[str]:
    header = found.header
    about: dict[str, Any] = {"type": "segment", "file": _printable(str(path))}
    if header is not None:
        about |= {"worker": header.worker_id.hex(), "begun": _time(header.created_ns), "slots": header.slots}
    yield _json(about | {"in_use": found.is_in_use})
    for number, record in read_records(descriptor, found):
        if record is None:
            yield _json({"type": "damage", "slot": number})
        else:
            fields = record._asdict() | {"flags": _flag_names(record.flags), "request_id": _request_id(record)}
            problem = _problem(record.problem) if record.problem else ""
            yield _json(
                {"type": "record", "slot": number, "time": _time(record.time_ns)} | fields | {"problem": problem}
            )
    yield _json(
        {
            "type": "end",
            "records": found.records,
            "torn": found.torn,
            "in_the_making": found.in_the_making,
            "bytes_not_understood": found.strange_bytes,
            "bytes_missing": found.missing_bytes,
        }
    )


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _time(ns: int) -> str:
    """To the microsecond: what a record holds is finer than any clock is right. The largest u64 is a day in 2554."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _problem(number: int) -> str:
    return BY_NUMBER[number].code if number in BY_NUMBER else f"problem-{number}"


def _flag_names(flags: int) -> list[str]:
    names = [name for flag, name in _FLAGS.items() if flags & flag]
    unknown = flags & ~sum(_FLAGS)
    return [*names, f"0x{unknown:x}"] if unknown else names


def _request_id(record: Record) -> str:
    return _printable(record.request_id.rstrip(b"\0").decode("latin-1"))


def _printable(text: str) -> str:
    """Without what a terminal would obey, or what standard output might not take."""
    return "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in text)
