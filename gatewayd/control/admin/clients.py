"""Clients: who stands behind X-Client-ID, limited each on its own within a key.

Registered ones are for all keys of a tenant or for one. Those that a plan accepts unasked (its `clients_limit`) become
rows of their key, too: they are listed, may be given rates, and removing one makes room for another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import usage
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.changes import change
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenantByNumber, page
from gatewayd.control.admin.problems import conflict, invalid, not_found
from gatewayd.control.admin.refs import key_by, new_public_id, tenant_by
from gatewayd.control.admin.spelling import ClientName, KeyRef
from gatewayd.control.admin.state import control_of
from gatewayd.control.admin.tags import answer_one
from gatewayd.control.admin.terms import (
    Burst,
    Rates,
    RateView,
    decode_rates,
    encode_rates,
    show_rates,
    windows,
    with_bursts_kept,
)
from gatewayd.control.tables import Client, Key, Tenant
from gatewayd.errors import CONFLICT
from gatewayd.policy.amounts import format_time

# As the data plane takes it from X-Client-ID. Not an id: it would stand for another client.
_NAME = re.compile(r"(?!cli_)[A-Za-z0-9._~:+/=@-]{1,128}", re.ASCII)
_MOST_NAMES = 1000


_RULES = "windows differ; a burst belongs to a rate"


class NewClient(msgspec.Struct, forbid_unknown_fields=True):
    name: ClientName
    key: KeyRef | None = None
    rates: Rates | None = None
    burst: Burst | None = None


class ChangedClient(msgspec.Struct, forbid_unknown_fields=True):
    rates: Rates | UnsetType | None = UNSET
    burst: Burst | UnsetType = UNSET


class Listed(PagedInTenantByNumber, frozen=True, kw_only=True):
    key: KeyRef | None = None


class One(InTenant, frozen=True, kw_only=True):
    key: KeyRef | None = None


class ClientView(msgspec.Struct):
    """`key` null: of all keys of the tenant. `rates` null: the plan's."""

    id: str
    name: str
    tenant: str
    key: str | None
    rates: list[RateView] | None
    created_at: str


def show_all(session: Session, tenant: Tenant, found: Sequence[Client]) -> list[ClientView]:
    keys = usage.key_names(session.connection(), (client.key_id for client in found if client.key_id is not None))
    return [
        ClientView(
            id=client.public_id,
            name=client.name,
            tenant=tenant.slug,
            key=None if client.key_id is None else usage.name_of(keys, client.key_id),
            rates=None if client.rates is None else show_rates(decode_rates(client.rates)),
            created_at=format_time(client.created_at),
        )
        for client in found
    ]


def show(session: Session, tenant: Tenant, client: Client) -> ClientView:
    return show_all(session, tenant, [client])[0]


@documented("List clients", query=Listed, answer=Page[ClientView], also=(CONFLICT,))
def list_(request: Request) -> Response:
    asked = read_query(request, Listed)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        query = select(Client).where(Client.tenant_id == tenant.id, col(Client.removed_at).is_(None))
        if asked.key is not None:
            query = query.where(Client.key_id == key_by(session, tenant, asked.key).id)
        return answer(page(session, query, col(Client.id), asked, lambda found: show_all(session, tenant, found)))


@documented("Show a client", query=One, answer=ClientView, shows_one=True, also=(CONFLICT,))
def get(request: Request) -> Response:
    asked = read_query(request, One)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        return answer_one(
            request, show(session, tenant, _client_by(session, tenant, request.path_params["ref"], asked.key))
        )


@documented("Add a client", query=InTenant, body=NewClient, answer=ClientView, status=201, rules=_RULES)
async def add(request: Request) -> Response:
    asked = read_query(request, InTenant)
    new = await read_body(request, NewClient)
    name = checked("name", _check_name, new.name)
    rates = _rates(new.rates, new.burst)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        key = None if new.key is None else key_by(made.session, tenant, new.key)
        _refuse_taken(made.session, tenant, key, name)
        assert tenant.id is not None
        client = Client(
            public_id=new_public_id(made.session, Client, "cli_"),
            tenant_id=tenant.id,
            key_id=None if key is None else key.id,
            name=name,
            rates=None if rates is None else encode_rates(rates),
            created_at=made.at,
        )
        made.session.add(client)
        shown = show(made.session, tenant, client)
        made.note("client.add", tenant.slug, client.public_id, after=shown)
    await control_of(request).plane.publish_keys(None if key is None else [key.public_id])
    return created(shown)


@documented("Change a client", query=One, body=ChangedClient, answer=ClientView, rules=_RULES, changes_one=True)
async def set_(request: Request) -> Response:
    asked = read_query(request, One)
    wanted = await read_body(request, ChangedClient)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        client = _client_by(made.session, tenant, request.path_params["ref"], asked.key)
        before = show(made.session, tenant, client)
        _change(client, wanted)
        made.session.add(client)
        shown = show(made.session, tenant, client)
        made.note("client.set", tenant.slug, client.public_id, before, shown)
        told = _whom_to_tell(made.session, client)
    await control_of(request).plane.publish_keys(told)
    return answer(shown)


@documented("Remove a client", query=One, answer=ClientView, changes_one=True)
async def remove(request: Request) -> Response:
    asked = read_query(request, One)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        client = _client_by(made.session, tenant, request.path_params["ref"], asked.key)
        before = show(made.session, tenant, client)
        client.removed_at = made.at
        made.session.add(client)
        made.note("client.remove", tenant.slug, client.public_id, before)
        told = _whom_to_tell(made.session, client)
    await control_of(request).plane.publish_keys(told)
    return answer(before)


def _change(client: Client, wanted: ChangedClient) -> None:
    burst = None if wanted.burst is UNSET else wanted.burst
    before = () if client.rates is None else decode_rates(client.rates)
    if wanted.rates is not UNSET:
        rates = _rates(wanted.rates, burst)
        if rates is not None and burst is None:
            rates = with_bursts_kept(rates, before)
        client.rates = None if rates is None else encode_rates(rates)
    elif burst is not None:
        if not before:
            raise invalid("burst", f"burst belongs to a rate, and the client {client.name!r} has none of its own")
        client.rates = encode_rates([msgspec.structs.replace(rate, burst=burst) for rate in before])


def _rates(texts: Sequence[str] | None, burst: int | None) -> Any:
    if texts is None and burst is not None:
        raise invalid("burst", "burst belongs to a rate; give one such as 60/min")
    return None if texts is None else windows(texts, burst)


def _client_by(session: Session, tenant: Tenant, ref: str, key_ref: str | None) -> Client:
    """By id; or by name, when no other client of the tenant has it, or of the key that is given."""
    live = [col(Client.tenant_id) == tenant.id, col(Client.removed_at).is_(None)]
    if key_ref is not None:
        live.append(col(Client.key_id) == key_by(session, tenant, key_ref).id)
    found = session.exec(
        select(Client).where((col(Client.public_id) == ref) | (col(Client.name) == ref), *live).limit(2)
    ).all()
    if not found:
        raise not_found("client", ref, session.exec(select(Client.name).where(*live).limit(_MOST_NAMES)))
    if len(found) > 1:
        raise conflict(f"more than one client is called {ref!r}; use its id, or say of which key")
    return found[0]


def _whom_to_tell(session: Session, client: Client) -> list[str] | None:
    """The key whose client it is; None, that is all, where it is a client of the tenant."""
    key = None if client.key_id is None else session.get(Key, client.key_id)
    return None if key is None else [key.public_id]


def _refuse_taken(session: Session, tenant: Tenant, key: Key | None, name: str) -> None:
    same = (Client.tenant_id == tenant.id, Client.name == name, col(Client.removed_at).is_(None))
    of_key = col(Client.key_id).is_(None) if key is None else Client.key_id == key.id
    if session.exec(select(Client.id).where(*same, of_key)).first():
        raise conflict(f"client {name!r} exists already")


def _check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"{name[:80]!r} is not a client: 1 to 128 letters, digits and ._~:+/=@-, not beginning with cli_"
        )
    return name
