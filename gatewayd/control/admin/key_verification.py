"""Would this key be let in? Asked with the key itself, which stands in the body of the request and nowhere else.

The answer is that of the data plane's own guards, on what the database says now; then allow-lists, networks and quota,
as far as the question says what they are about. The limits of the moment are the workers' affair and not asked.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlmodel import Session, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import keys
from gatewayd.conf import KeyConf, ServiceConf
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.inputs import checked, read_body, read_query
from gatewayd.control.admin.key_views import QuotaLeft, Status, show, show_limits
from gatewayd.control.admin.refs import service_by, tenant_by
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.compile import find_key
from gatewayd.control.tables import Key, Tenant
from gatewayd.errors import (
    ADDRESS_NOT_ALLOWED,
    QUOTA_EXCEEDED,
    ROUTE_NOT_ALLOWED,
    TENANT_SUSPENDED,
    Refusal,
)
from gatewayd.policy.allowing import compile_allow, compile_networks
from gatewayd.policy.amounts import format_time
from gatewayd.policy.balancing import Rotation
from gatewayd.policy.facts import Facts, Fields, Guard, Service
from gatewayd.policy.forwarding import is_trusted, plain_address
from gatewayd.policy.guards import NO_SUCH_KEY, generation_of, key_is_for_service, key_is_known, key_is_valid
from gatewayd.policy.spending import KeyEntry

_SUSPENDED = Refusal(TENANT_SUSPENDED, "the key's tenant is suspended")
_OTHER_ROUTE = Refusal(ROUTE_NOT_ALLOWED, "this API key is not for this method and path")
_OTHER_ADDRESS = Refusal(ADDRESS_NOT_ALLOWED, "this API key is not for this address")
_USED_UP = Refusal(QUOTA_EXCEEDED, "the quota of this month is used up")


class AskedTenant(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tenant: str | None = None  # a key of another is then not known


class Question(msgspec.Struct, forbid_unknown_fields=True):
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    service: str | None = None
    method: str | None = None
    path: str | None = None  # within the service
    address: str | None = None

    def __repr__(self) -> str:
        return "<Question of a key>"  # the secret must not stand in a traceback


class Verdict(msgspec.Struct):
    """`code`: what a caller would be refused with. Of a key that is not known there is no more than that."""

    valid: bool
    code: str | None
    detail: str
    id: str | UnsetType = UNSET
    prefix: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    tenant: str | UnsetType = UNSET
    services: list[str] | UnsetType = UNSET
    plan: str | UnsetType | None = UNSET
    status: Status | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    generation: int | UnsetType = UNSET
    expires_at: str | UnsetType | None = UNSET
    quota: QuotaLeft | UnsetType | None = UNSET


@documented(
    "Tell whether a key would be let in",
    query=AskedTenant,
    body=Question,
    answer=Verdict,
    rules="`address` is an IP address",
)
async def verify(request: Request) -> Response:
    asked = read_query(request, AskedTenant)
    question = await read_body(request, Question)
    control = control_of(request)
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_judge, control, asked.tenant, question))


def _judge(control: ControlState, tenant_ref: str | None, question: Question) -> dict[str, Any]:
    now, credential = now_s(), question.key.encode()
    if question.address is not None:
        checked("address", plain_address, question.address)
    with control.database.read() as session:
        tenant = None if tenant_ref is None else tenant_by(session, tenant_ref)
        name = keys.public_id_of(credential) or keys.name_of_digest(keys.digest(credential))
        conf = find_key(session.connection(), name)
        if conf is None or (tenant is not None and conf.tenant_id != tenant.id):
            return _shown(NO_SUCH_KEY, {})
        facts = _facts(session, question, conf, name, credential)
        guards: tuple[Guard, ...] = (key_is_known, key_is_valid)
        if question.service is not None:
            guards += (key_is_for_service,)
        for guard in guards:
            refusal = guard(facts, 0.0, now)
            if isinstance(refusal, Refusal):
                break
        if facts.key is None:  # its id is known, and it is another key
            return _shown(NO_SUCH_KEY, {})
        key = session.exec(select(Key).where(Key.id == conf.id)).one()
        owner = session.exec(select(Tenant).where(Tenant.id == conf.tenant_id)).one()
        limits = show_limits(session, key, now)
        if not isinstance(refusal, Refusal):
            refusal = _refusal_of_terms(owner, conf, question, limits["quota"])
        view = show(session, owner, key, now)
        generation = generation_of(facts)
        about = {
            name: getattr(view, name)
            for name in ("id", "prefix", "name", "tenant", "services", "plan", "status", "labels")
        }
        ends = [each.until for each in conf.older if each.number == generation] + [conf.expires_at]
        expires_at = min((end for end in ends if end is not None), default=None)
        return _shown(
            refusal,
            {
                **about,
                "generation": generation,
                "expires_at": None if expires_at is None else format_time(int(expires_at)),
                "quota": limits["quota"],
            },
        )


def _facts(session: Session, question: Question, conf: KeyConf, name: str, credential: bytes) -> Facts:
    """As of a request with this key, for the service in question or for one of the key's tenant."""
    tenant_id, service_id = conf.tenant_id, 0
    if question.service is not None:
        owner = session.exec(select(Tenant).where(Tenant.id == conf.tenant_id)).one()
        service_id = service_by(session, owner, question.service).id or 0
    facts, fields = Facts(), Fields()
    # Its rules and networks are asked apart, about what the question names: here is no request to ask them of.
    unbound = msgspec.structs.replace(conf, allow=(), networks=())
    facts.fields, facts.keys, facts.key = fields, {name: KeyEntry(unbound)}, None
    fields.credential, fields.public_id, fields.proven = credential, name, None
    facts.service = Service(
        conf=ServiceConf(service_id, "", tenant_id, "", "", "key", (), (), False, None, 0.0, None, "X-API-Key"),
        id=service_id,
        tenant_id=tenant_id,
        key_header=b"x-api-key",
        targets=(),
        rotation=Rotation(),
        idle_timeout_s=0.0,
        connect_timeout_s=0.0,
        imported_keys=True,
    )
    return facts


def _refusal_of_terms(
    tenant: Tenant, conf: KeyConf, question: Question, quota: dict[str, int] | None
) -> Refusal | None:
    if tenant.suspended:
        return _SUSPENDED
    if question.address is not None and conf.networks:
        address = plain_address(question.address).encode()
        if not is_trusted(address, compile_networks(conf.networks)):
            return _OTHER_ADDRESS
    if question.path is not None:
        wanted = f"{(question.method or 'GET').upper()} {question.path}".encode()
        lists = (msgspec.json.decode(tenant.allow, type=tuple[str, ...]), conf.allow)
        if any(rules and compile_allow(rules).fullmatch(wanted) is None for rules in lists):
            return _OTHER_ROUTE
    if quota is not None and not quota["remaining"] and not (conf.quota_soft or conf.shadow):
        return _USED_UP
    return None


def _shown(refusal: Refusal | None, about: dict[str, Any]) -> dict[str, Any]:
    """`code` is what a caller would be refused with; of a key that is not known, nothing else is."""
    return {
        "valid": refusal is None,
        "code": None if refusal is None else refusal.problem.code,
        "detail": "" if refusal is None else refusal.detail,
        **about,
    }
