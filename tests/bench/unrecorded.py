"""gatewayd whose workers put nothing on their journals: what the journal costs is the difference.

    python -m tests.bench.unrecorded [OPTIONS OF gatewayd]

A worker makes its segments, judges, counts and answers as ever; a record is neither packed nor stored. It is no setting
of the product: nobody should be able to switch the bill off.
"""

from __future__ import annotations

import sys

from gatewayd import cli, supervisor
from gatewayd.boot import Boot
from gatewayd.proxy import recording, worker
from gatewayd.proxy.journal import Journal
from gatewayd.supervisor import Child

_WORKER = "gatewayd.proxy"


def _child(name: str, module: str, boot: Boot) -> Child:
    return Child(name, "tests.bench.unrecorded" if module == _WORKER else module, boot)


def _drop(journal: Journal, record: bytes) -> None:
    pass


def main() -> None:
    if sys.argv[1:] and sys.argv[1].isdigit():  # by the supervisor: the descriptor of a worker's boot
        recording.pack_record = lambda *fields: b""  # type: ignore[attr-defined]
        Journal.append = _drop  # type: ignore[assignment,method-assign]
        worker.main()
    else:
        supervisor.Child = _child  # type: ignore[assignment,misc]
        cli.main()


if __name__ == "__main__":
    main()
