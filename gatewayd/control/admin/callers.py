"""Who is asking, once that is known: a name for the audit, a role, and the tenant that it is bound to, if it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request

# Each may do what those before it may. `anyone` is whoever can connect; a viewer changes nothing; an operator does the
# day's work; an admin also decides over tenants, money, tokens and the whole configuration.
Role = Literal["anyone", "viewer", "operator", "admin"]
# tenant: works in the tenant of the query. itself: on the tenant that its path names. gateway: concerns all of them,
# so one who is bound to a tenant may not. caller: is about whoever asks.
Reach = Literal["tenant", "itself", "gateway", "caller"]
_RANKS: dict[Role, int] = {"anyone": 0, "viewer": 1, "operator": 2, "admin": 3}


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenant`: slug and id of the one that it is bound to. `token_id`, `expires_at`: of the token that it showed."""

    actor: str
    role: Role
    via: Literal["socket", "token"]
    tenant: str | None = None
    tenant_public_id: str | None = None
    token_id: int | None = None
    expires_at: int | None = None

    def may(self, role: Role) -> bool:
        return _RANKS[self.role] >= _RANKS[role]

    def __str__(self) -> str:
        an = "an" if self.role[0] in "ao" else "a"
        bound = "" if self.tenant is None else f" of tenant {self.tenant}"
        return f"{self.actor} is {an} {self.role}{bound}"


def caller_of(request: Request) -> Caller:
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


def actor_of(request: Request) -> str:
    """Who the audit says made a change."""
    return caller_of(request).actor
