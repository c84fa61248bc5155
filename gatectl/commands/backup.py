"""`gatectl backup`: everything, from a gateway that goes on."""

from typing import Annotated

import typer

from gatectl.errors import MisuseError
from gatectl.grammar import Call, verb_command
from gatectl.output import Column

COLUMNS = (
    Column("file"),
    Column("size_bytes", "size"),
    Column("created_at", "time"),
    Column("gatewayd"),
    Column("schema", wide=True),
    Column("files", "number"),
    Column("waiting_records", "number"),
)


def backup(
    call: Call,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to (.tar.gz: compressed; -: stdout); else named for the time."
        ),
    ] = None,
) -> None:
    """Make a backup of everything, while the gateway goes on.

    A tar of the database, as of one moment, and of the journals that are not on the usage yet: every request is in it
    once. It is read again and checked before it gets its name. It holds digests of keys and secrets of webhooks, so its
    mode is 0600.
    """
    from gatectl.backups import making
    from gatectl.progress import bytes_shown

    if out == "-" and call.printer.terminal:
        raise MisuseError("a backup is nothing for a terminal", "send it on: gatectl backup --out - | ...")
    call.printer.refuse_ids()
    with bytes_shown(call.printer.quiet) as shown:
        if out == "-":
            making.to_stdout(call.gateway, shown)
            return
        made = making.to_file(call.gateway, out or making.default_name(), shown)
    if call.printer.asked or not call.printer.quiet:
        call.printer.one(made, COLUMNS)
    call.printer.note(f"\nIt is whole. Put back with: gatectl restore {made['file']}")


command = verb_command("backup", backup, ["gatectl backup", "gatectl backup --out /srv/backups/gatewayd.tar.gz"])
