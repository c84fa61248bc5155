"""What was served and never recorded: counted by workers, kept in the database, so that no restart makes it unsaid."""

from __future__ import annotations

from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from gatewayd.control.database import Database
from gatewayd.control.tables import JournalLoss

_loss = JournalLoss.__table__  # type: ignore[attr-defined]


class Losses:
    """`<Losses 7 requests of 2 workers>`"""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: set[bytes] = set()
        with database.read() as session:
            self._of_workers = {row.worker_id: row.requests for row in session.exec(select(JournalLoss))}

    def __repr__(self) -> str:
        return f"<Losses {self.total} requests of {len(self._of_workers)} workers>"

    @property
    def total(self) -> int:
        return sum(self._of_workers.values())

    def told(self, worker_id: bytes, requests: int) -> None:
        """The sum of a worker since it began. What it told before is in it."""
        if requests > self._of_workers.get(worker_id, 0):
            self._of_workers[worker_id] = requests
            self._unwritten.add(worker_id)

    def write(self) -> None:
        """On the loop. Where the disk is full, which is how requests are lost, later."""
        if not self._unwritten or self._database.is_lent:
            return
        rows = [{"worker_id": each, "requests": self._of_workers[each]} for each in self._unwritten]
        statement = insert(_loss)
        try:
            with self._database.write() as session:
                newer = {"requests": statement.excluded.requests}
                session.connection().execute(statement.on_conflict_do_update(["worker_id"], set_=newer), rows)
        except DBAPIError:  # ingest says so, by the second
            return
        self._unwritten.clear()
