"""Many keys from a CSV file, in one transaction, while control goes on.

A thread takes the file as it comes in, checks each row and stages it in a temporary table of a connection of its own:
nobody waits for that. When all rows are good, they go to the keys in one transaction, which has the database's only
write lock for as long as it takes (6 s for a million, measured); `Database.lent` says so to whoever would wait for it.
SQLite leaves Python alone while it works, so the loop goes on: look-ups and leases only read.

    columns  secret or sha256, and if wanted name, services (with spaces between), plan, expires, id, label:NAME

A secret is of the user's own making, and so is its strength, which cannot be seen: what is short or monotonous is
refused. Keys that come as digests are taken at their word.
"""

from __future__ import annotations

import contextlib
import csv
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import msgspec

from gatewayd import keys
from gatewayd.policy.audit_chain import GENESIS, Line, link

CHUNKS_AHEAD = 8  # of the file, each as large as the server reads: the sender waits for the rest
BATCH_ROWS = 1000
STORED_AT_ONCE = 20_000  # in one statement: how often progress is seen
LONGEST_LINE_BYTES = 65536
LEAST_SECRET = 20  # characters: 119 bits if they are letters and digits and drawn at random
_LEAST_DIFFERENT = 8
_CACHE_KIB = 65536  # of the database's pages while it takes a million rows: their digests go everywhere

COLUMNS = ("secret", "sha256", "name", "services", "plan", "expires", "id")
_LABEL = "label:"
_SECRET = re.compile(rf"[\x21-\x7e]{{{LEAST_SECRET},512}}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_ID = re.compile(r"(?:key_|gw_)?([a-z0-9]{8})", re.ASCII)

_STAGE = """
    CREATE TEMP TABLE staged (
        line INTEGER, public_id TEXT, given INTEGER, digest BLOB, name TEXT, service_ids TEXT, plan_id INTEGER,
        expires_at INTEGER, labels TEXT
    )
"""
_TAKEN = (
    ("SELECT staged.line, key.public_id FROM staged JOIN key ON key.digest = staged.digest ORDER BY 1 LIMIT 1",
     "is that of key gw_{}, which exists"),
    ("SELECT staged.line, key.public_id FROM staged JOIN key_generation ON key_generation.digest = staged.digest"
     " JOIN key ON key.id = key_generation.key_id ORDER BY 1 LIMIT 1",
     "was that of key gw_{}"),
    ("SELECT staged.line, key.public_id FROM staged JOIN key ON key.public_id = staged.public_id WHERE given"
     " ORDER BY 1 LIMIT 1",
     "has the id {}, which exists"),
)  # fmt: skip
# What was there when the file was read, and was removed while it still came in.
_GONE = (
    ("SELECT 0 FROM tenant WHERE id = :tenant_id AND removed_at IS NOT NULL", "the tenant was removed meanwhile"),
    ("SELECT min(line) FROM staged JOIN plan ON plan.id = staged.plan_id WHERE plan.removed_at IS NOT NULL"
     " HAVING count(*) > 0", "has a plan that was removed meanwhile"),
)  # fmt: skip
_TWICE = "SELECT min(line), max(line) FROM staged {} GROUP BY {} HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
# Ids that were drawn here and are somebody's already: a few, where there are millions of keys.
_UNLUCKY = """
    SELECT rowid FROM staged WHERE NOT given AND (
        public_id IN (SELECT public_id FROM key)
        OR public_id IN (SELECT public_id FROM staged GROUP BY public_id HAVING count(*) > 1)
    )
"""
_STORE = """
    INSERT INTO key (public_id, digest, tenant_id, name, service_ids, plan_id, created_at, expires_at, generation,
                     allow, networks, overrides, labels, imported)
    SELECT public_id, digest, :tenant_id, name, service_ids, plan_id, :now, expires_at, 1,
           '[]', '[]', '{}', labels, TRUE
    FROM staged WHERE rowid > :first AND rowid <= :last ORDER BY rowid
"""


_NEWEST_LINE = "SELECT sha256 FROM audit ORDER BY id DESC LIMIT 1"
_NOTE = "INSERT INTO audit (at, actor, action, tenant, subject, before, after, sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class BadRowError(ValueError):
    """A sentence that says which line is wrong, and how. Never with what stands in it: that may be a secret."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}" if line else why)


class StoppedError(Exception):
    """Whoever sent the file has gone."""


@dataclass(frozen=True, slots=True)
class Words:
    """What names in the file stand for. Each is asked once for a name, and raises ValueError with a sentence."""

    name: Callable[[str], str]
    services: Callable[[str], str | None]
    plan: Callable[[str], int | None]
    expires: Callable[[str], int | None]
    labels: Callable[[dict[str, str]], dict[str, str]]


class KeyImport:
    """One import, from the first byte to the commit. `feed` is for the sender, all else for the thread."""

    def __init__(self, path: Path, tenant_id: int, words: Words, now: int) -> None:
        self.state = "receiving"
        self.rows = 0
        self.stored = 0
        self._tenant_id = tenant_id
        self._words = words
        self._now = now
        self._stopped = threading.Event()
        self._chunks: Queue[bytes | None] = Queue(CHUNKS_AHEAD)
        self._database = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous=NORMAL")
        for schema in ("main", "temp"):
            self._database.execute(f"PRAGMA {schema}.cache_size=-{_CACHE_KIB}")
        self._database.execute(_STAGE)

    def __repr__(self) -> str:
        return f"<KeyImport {self.state} {self.rows} rows, {self.stored} stored>"

    # For the sender.

    def feed(self, chunk: bytes | None) -> None:
        """The next bytes, or None at the end. Waits while the thread is behind."""
        self._chunks.put(chunk)

    def stop(self) -> None:
        """Nothing of it is to be stored. The thread ends soon."""
        self._stopped.set()
        self._database.interrupt()

    def close(self) -> None:
        self._database.close()

    # For the thread.

    def stage(self) -> None:
        """Take and check every row. Raises BadRowError at the first that is wrong; what still comes is passed over."""
        chunks = iter(self._chunks.get, None)
        try:
            self._stage(chunks)
        finally:
            for _ in chunks:  # the sender must not wait for ever for a place in the queue
                pass

    def _stage(self, chunks: Iterator[bytes]) -> None:
        reader = csv.reader(_lines(chunks), strict=True)
        batch: list[tuple[Any, ...]] = []
        try:
            read_row = self._row_reader(next(reader, []))
            for cells in reader:
                if not cells:
                    continue
                try:
                    batch.append(read_row(reader.line_num, cells))
                except ValueError as error:
                    raise BadRowError(reader.line_num, str(error)) from None
                if len(batch) == BATCH_ROWS:
                    self._stage_batch(batch)
        except csv.Error as error:
            raise BadRowError(reader.line_num, str(error)) from None
        except UnicodeDecodeError:
            raise BadRowError(reader.line_num + 1, "is not UTF-8, or is soon followed by what is not") from None
        self._stage_batch(batch)

    def _stage_batch(self, batch: list[tuple[Any, ...]]) -> None:
        if self._stopped.is_set():
            raise StoppedError
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO staged VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", batch)
        self._database.execute("COMMIT")
        self.rows += len(batch)
        batch.clear()

    def _row_reader(self, header: Sequence[str]) -> Callable[[int, Sequence[str]], tuple[Any, ...]]:
        """From the cells of a line to a row, for columns in this order."""
        places = _places(header)
        labels = [(name.removeprefix(_LABEL), at) for name, at in places.items() if name.startswith(_LABEL)]
        secret_at, sha256_at, name_at, services_at, plan_at, expires_at, id_at = (places.get(each) for each in COLUMNS)
        services, plan, expires = (
            _Once(read) for read in (self._words.services, self._words.plan, self._words.expires)
        )
        check_name, check_labels, width = self._words.name, self._words.labels, len(header)
        drawn = keys.drawn_public_ids()

        def read(line: int, cells: Sequence[str]) -> tuple[Any, ...]:
            if len(cells) != width:
                raise ValueError(f"has {len(cells)} cells, and the first line {width}")
            secret = cells[secret_at] if secret_at is not None else ""
            sha256 = cells[sha256_at] if sha256_at is not None else ""
            if bool(secret) == bool(sha256):
                raise ValueError("has neither a secret nor a sha256" if not secret else "has a secret and a sha256")
            given = cells[id_at] if id_at is not None else ""
            told = {label: cells[at] for label, at in labels if cells[at]}
            return (
                line,
                check_id(given) if given else next(drawn),
                1 if given else 0,
                _digest_of_secret(secret) if secret else _check_digest(sha256),
                check_name(cells[name_at]) if name_at is not None else "",
                services[cells[services_at] if services_at is not None else ""],
                plan[cells[plan_at] if plan_at is not None else ""],
                expires[cells[expires_at] if expires_at is not None else ""],
                msgspec.json.encode(check_labels(told)).decode() if told else "{}",
            )

        return read

    def check(self) -> None:
        """Nothing may be there twice, in the file or beside the keys that exist."""
        self.state = "checking"
        run = self._database.execute
        run("CREATE INDEX temp.staged_digest ON staged (digest, line)")
        if twice := run(_TWICE.format("", "digest")).fetchone():
            raise BadRowError(twice[1], f"has the same key as line {twice[0]}")
        if twice := run(_TWICE.format("WHERE given", "public_id")).fetchone():
            raise BadRowError(twice[1], f"has the same id as line {twice[0]}")
        for query, why in _TAKEN:
            if taken := run(query).fetchone():
                raise BadRowError(taken[0], why.format(taken[1]))
        run("CREATE INDEX temp.staged_public_id ON staged (public_id, given)")
        while unlucky := run(_UNLUCKY).fetchall():
            fresh = [(keys.new_public_id(), rowid) for (rowid,) in unlucky]
            self._database.executemany("UPDATE staged SET public_id = ? WHERE rowid = ?", fresh)

    def store(self, note: Callable[[int], Line]) -> None:
        """All rows, and the line in the audit, in one transaction."""
        self.state = "storing"
        run = self._database.execute
        run("BEGIN IMMEDIATE")
        try:
            for query, why in _GONE:
                if gone := run(query, {"tenant_id": self._tenant_id}).fetchone():
                    raise BadRowError(gone[0], why)
            while self.stored < self.rows:
                last = min(self.stored + STORED_AT_ONCE, self.rows)
                run(_STORE, {"tenant_id": self._tenant_id, "now": self._now, "first": self.stored, "last": last})
                self.stored = last
                if self._stopped.is_set():
                    raise StoppedError
            run("UPDATE tenant SET imported_keys = TRUE WHERE id = ?", (self._tenant_id,))
            line, newest = note(self.rows), run(_NEWEST_LINE).fetchone()
            run(_NOTE, (*line, link(newest[0] if newest else GENESIS, line)))
            run("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                run("ROLLBACK")
            raise
        with contextlib.suppress(sqlite3.Error):  # else the log stays as large as the import, which does no harm
            run("PRAGMA wal_checkpoint(TRUNCATE)")


class _Once(dict[str, Any]):
    """A parser whose answers are remembered: a million rows name few plans."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        super().__init__()
        self._parse = parse

    def __missing__(self, text: str) -> Any:
        if len(self) > 10_000:
            self.clear()
        value = self[text] = self._parse(text)
        return value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines of UTF-8 as they come in, with or without a byte order mark."""
    rest = b""
    coding = "utf-8-sig"
    for chunk in chunks:
        whole, newline, rest_of_chunk = chunk.rpartition(b"\n")
        if newline:
            # Not splitlines, which knows more ends of lines than CSV does.
            yield from [line + "\n" for line in (rest + whole).decode(coding).split("\n")]
            rest, coding = rest_of_chunk, "utf-8"
        else:
            rest += chunk
        if len(rest) > LONGEST_LINE_BYTES:
            raise csv.Error(f"is longer than {LONGEST_LINE_BYTES} bytes")
    if rest:
        yield rest.decode(coding)


def _places(header: Sequence[str]) -> dict[str, int]:
    """Where each column is. The order is the file's."""
    places: dict[str, int] = {}
    known = ", ".join((*COLUMNS, _LABEL + "NAME"))
    for at, cell in enumerate(header):
        name = cell.strip()
        # Not quoted: in a file without names of columns, this may be a secret.
        if name not in COLUMNS and not name.startswith(_LABEL):
            raise BadRowError(1, f"column {at + 1} has no name that is known; known are {known}")
        if name in places:
            raise BadRowError(1, f"the column {name} stands there twice")
        places[name] = at
    if "secret" not in places and "sha256" not in places:
        raise BadRowError(1, "names neither a secret nor a sha256: the first line has to name the columns")
    return places


def _digest_of_secret(secret: str) -> bytes:
    if secret.startswith(keys.PREFIX):
        raise ValueError("has a secret that begins with gw_, as ours do; give its sha256 and its id instead")
    if _SECRET.fullmatch(secret) is None:
        raise ValueError(f"has a secret that is not of {LEAST_SECRET} to 512 visible ASCII characters")
    if len(set(secret)) < _LEAST_DIFFERENT:
        raise ValueError(f"has a secret of fewer than {_LEAST_DIFFERENT} different characters")
    return keys.digest(secret.encode())


def _check_digest(text: str) -> bytes:
    if _SHA256.fullmatch(text) is None:
        raise ValueError("has a sha256 that is not of 64 hexadecimal digits")
    return bytes.fromhex(text)


def check_id(text: str) -> str:
    match = _ID.fullmatch(text)
    if match is None:
        raise ValueError("has an id that is not of 8 lower-case letters and digits")
    return match[1]
