"""Rotation: a new secret under the same public id, and an end for the older ones.

Every secret that a key has had is a generation. The current one stands in the key's row, the others in rows of their
own; what the bill, the lists and the limits name is the key, whichever of them was shown.
"""

from __future__ import annotations

import msgspec
from sqlmodel import col, func, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import keys
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.changes import Change, change
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.inputs import InTenant, checked, read_body, read_query
from gatewayd.control.admin.key_views import RotatedKey, show, show_generations
from gatewayd.control.admin.problems import AdminError, conflict
from gatewayd.control.admin.refs import key_by, tenant_by
from gatewayd.control.admin.spelling import Duration
from gatewayd.control.admin.state import control_of
from gatewayd.control.tables import Key, KeyGeneration, Tenant
from gatewayd.errors import NOT_FOUND
from gatewayd.policy.amounts import parse_duration

# A day: who rotates without a thought for callers does not cut them off, and a secret that leaked is soon worthless.
DEFAULT_OVERLAP = DEFAULT_RETIRE_AFTER = "24h"
LARGEST_GENERATION = 0xFFFF  # what a record holds
WORKING_LIMIT = 8  # older ones at once: each is compared with what a caller shows


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """`retire_after`: null keeps an old secret until the overlap has passed, whether it is used or not."""

    overlap: Duration = DEFAULT_OVERLAP
    retire_after: Duration | None = DEFAULT_RETIRE_AFTER


@documented(
    "Rotate a key",
    query=InTenant,
    body=Rotation,
    body_optional=True,
    answer=RotatedKey,
    rules="durations are at most 100 years",
    changes_one=True,
)
async def rotate(request: Request) -> Response:
    """The answer holds the new key, as that of `create` does."""
    asked = read_query(request, InTenant)
    wanted = await read_body(request, Rotation, optional=True)
    overlap_s = checked("overlap", _overlap, wanted.overlap)
    retire_after_s = None if wanted.retire_after is None else checked("retire_after", _overlap, wanted.retire_after)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        key = key_by(made.session, tenant, request.path_params["ref"])
        _refuse_unrotatable(made, key)
        before = show(made.session, tenant, key, made.at)
        assert key.id is not None
        made.session.add(
            KeyGeneration(
                key_id=key.id,
                number=key.generation,
                digest=key.digest,
                created_at=key.created_at if key.generation_at is None else key.generation_at,
                until=made.at + overlap_s,
                last_used_at=key.last_used_at,
                retire_after_s=retire_after_s,
            )
        )
        made.session.flush()
        _, secret = keys.new_key(key.public_id)
        key.digest = keys.digest(secret.encode())
        key.generation += 1
        key.generation_at = made.at
        key.first_used_at = key.last_used_at = None
        made.session.add(key)
        shown = show(made.session, tenant, key, made.at)
        generations = show_generations(made.session, key, made.at)
        made.note(
            "key.rotate", tenant.slug, shown.id, before, {**msgspec.structs.asdict(shown), "overlap_s": overlap_s}
        )
    await control_of(request).plane.publish_keys([key.public_id])
    return answer({"id": shown.id, "key": secret, **msgspec.structs.asdict(shown), "generations": generations})


def end_generation(made: Change, tenant: Tenant, key: Key, number: int) -> None:
    """One of the older secrets works no more, the others go on."""
    if number == key.generation:
        raise conflict(f"generation {number} is the current one; rotate the key first, or revoke it as a whole")
    generation = made.session.get(KeyGeneration, (key.id, number))
    if generation is None:
        raise AdminError(NOT_FOUND, f"key gw_{key.public_id} has no generation {number}")
    if generation.ended_at is None:
        generation.ended_at = made.at
        made.session.add(generation)
        made.note("key.revoke", tenant.slug, f"key_{key.public_id}", after={"generation": number})


def _refuse_unrotatable(made: Change, key: Key) -> None:
    if key.revoked_at is not None:
        raise conflict(f"key gw_{key.public_id} is revoked, which is for ever; create another")
    if key.generation >= LARGEST_GENERATION:
        raise conflict(f"key gw_{key.public_id} has been rotated {key.generation} times; create another")
    working = select(func.count()).where(
        KeyGeneration.key_id == key.id, col(KeyGeneration.ended_at).is_(None), col(KeyGeneration.until) > made.at
    )
    if made.session.exec(working).one() >= WORKING_LIMIT:
        raise conflict(f"{WORKING_LIMIT} older secrets of this key work still; revoke one with its generation first")


def _overlap(text: str) -> int:
    """Seconds; `0` is none, which no other duration may be."""
    return 0 if text.strip() in ("0", "0s") else parse_duration(text)
