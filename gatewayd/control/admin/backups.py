"""A backup of everything, as a tar stream. It holds digests of keys and secrets of webhooks: for admins alone."""

from __future__ import annotations

import asyncio
import sqlite3
from itertools import chain

from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import backup
from gatewayd.control.admin.changes import change, now_s
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.inputs import Nothing, read_query
from gatewayd.control.admin.problems import conflict
from gatewayd.control.admin.state import control_of
from gatewayd.control.admin.streams import BlockStream, threaded
from gatewayd.errors import CONFLICT, UNAVAILABLE, GatewayError

PATIENCE_S = 60.0  # with a client that takes nothing: the copy takes its room on the disk meanwhile
MEDIA_TYPE = "application/x-tar"


@documented("Make a backup", query=Nothing, media=MEDIA_TYPE, also=(CONFLICT,))
async def make(request: Request) -> Response:
    """POST, though it changes nothing of what callers see: it copies the database, and the audit says who has it."""
    read_query(request, Nothing)
    control = control_of(request)
    if control.backups.running:
        raise conflict("a backup is under way; wait for it to end")
    backup.refuse_without_room(control.settings.state_dir, control.database.size_bytes())
    with change(request) as made:
        made.note("backup.make", "", "gateway")
    control.backups.running = True

    def ended() -> None:
        control.backups.running = False

    blocks = backup.blocks(control.database.path, control.settings.state_dir, now_s(), control.backups.stopping)
    try:
        with control.plane.journals_held():
            await asyncio.to_thread(next, blocks)
        first = await asyncio.to_thread(next, blocks)
    except (OSError, sqlite3.Error) as error:
        ended()
        raise GatewayError(UNAVAILABLE, f"the database could not be copied: {error}") from None
    return BlockStream(threaded(chain((first,), blocks), blocks.close), ended, PATIENCE_S, MEDIA_TYPE)
