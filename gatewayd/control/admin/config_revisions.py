"""Revisions of the configuration: each apply and each rollback, and what the whole was after it."""

from __future__ import annotations

import zlib
from typing import Any, Literal

import msgspec
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin import hidden
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.config_definitions import Document
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import Nothing, read_query
from gatewayd.control.admin.pages import PagedByNumber, page
from gatewayd.control.admin.problems import AdminError
from gatewayd.control.admin.state import control_of
from gatewayd.control.tables import ConfigRevision
from gatewayd.errors import NOT_FOUND
from gatewayd.policy.amounts import format_time


class RevisionView(msgspec.Struct):
    """`restored`: the revision that a rollback brought back."""

    id: int
    number: int
    at: str
    actor: str
    kind: Literal["apply", "rollback", "found"]
    message: str
    restored: int | None
    added: int
    changed: int
    removed: int


class WholeRevision(RevisionView):
    """With the configuration as it was then."""

    document: Document


@documented("List revisions of the configuration, newest first", query=PagedByNumber, answer=Page[RevisionView])
def revisions(request: Request) -> Response:
    asked = read_query(request, PagedByNumber)
    with control_of(request).database.read() as session:
        query = select(ConfigRevision).options(defer(ConfigRevision.document))  # type: ignore[arg-type]
        return answer(page(session, query, col(ConfigRevision.id), asked, show_revisions, newest_first=True))


@documented("Show a revision of the configuration", query=Nothing, answer=WholeRevision, also=(NOT_FOUND,))
def revision(request: Request) -> Response:
    """With its document; to a viewer without what may be credentials."""
    read_query(request, Nothing)
    number, hides = request.path_params["number"], hidden.hides(request)
    with control_of(request).database.read() as session:
        found = revision_by(session, int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0)
        shown = msgspec.structs.asdict(show_revisions([found])[0])
        document = document_of(found)
        return answer({**shown, "document": msgspec.Raw(hidden.of_document(document) if hides else document)})


def revision_by(session: Session, number: int) -> ConfigRevision:
    found = session.get(ConfigRevision, number)
    if found is None:
        raise AdminError(NOT_FOUND, f"there is no revision {number}")
    return found


def document_of(revision: ConfigRevision) -> bytes:
    return zlib.decompress(revision.document)


def show_revisions(found: Any) -> list[RevisionView]:
    return [
        RevisionView(
            id=each.id,
            number=each.id,
            at=format_time(each.at),
            actor=each.actor,
            kind=each.kind,
            message=each.message,
            restored=each.restored,
            added=each.added,
            changed=each.changed,
            removed=each.removed,
        )
        for each in found
    ]
