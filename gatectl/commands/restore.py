"""`gatectl restore`: a backup back into a state folder."""

from pathlib import Path
from typing import Annotated

import typer

from gatectl import consent
from gatectl.grammar import Call, verb_command
from gatectl.output import Column

COLUMNS = (
    Column("state_dir"),
    Column("created_at", "time"),
    Column("gatewayd"),
    Column("schema", wide=True),
    Column("files", "number"),
    Column("size_bytes", "size"),
    Column("waiting_records", "number"),
    Column("kept"),
)


def restore(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A backup, as 'gatectl backup' made it.")],
    state_dir: Annotated[
        str | None, typer.Option("--state-dir", metavar="DIR", help="Of the gateway; by default the system's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also over a gateway's state, which is put aside.")] = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Put a backup back, where no gateway is running.

    The backup is unpacked and checked first; then what was in the folder is put aside, and stays there. It works on
    files alone: the gateway must be stopped. Start it again afterwards: what the backup's journals held and its
    database did not is then added to the usage, once. With --dry-run a gateway may run: the backup is read and checked,
    and nothing is written.
    """
    from gatectl.backups import restoring
    from gatectl.progress import bytes_shown

    folder = Path(state_dir or restoring.default_state_dir())
    with bytes_shown(call.printer.quiet) as shown:
        if dry_run:
            restored = restoring.look(file, folder, shown)
        else:
            restored = restoring.restore(file, folder, shown, force=force)
    if call.printer.asked or not call.printer.quiet:
        call.printer.one(restored, COLUMNS)
    if dry_run:
        also = f"; with --force, since {folder} holds the state of one" if restoring.is_occupied(folder) else ""
        call.printer.note(f"\nIt is whole. Nothing was done. It goes back where no gateway is running{also}")
    else:
        call.printer.note("\nRestored. Next: start gatewayd")


command = verb_command(
    "restore",
    restore,
    ["gatectl restore gatewayd.tar.gz --dry-run", "gatectl restore gatewayd.tar.gz --state-dir /srv/gatewayd"],
)
