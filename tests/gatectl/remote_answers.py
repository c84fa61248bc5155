"""What the fake daemon says of tokens, of who is asking, and of the audit's chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from tests.gatectl.problems import ProblemError

SECRET = "gwt_nw22pq33_5Zt0kq8m2Y7nWb1RfXc9sd3JgHxVq4QwErTy"
AT = "2026-11-21T02:00:00Z"
NOTED = "ab" * 32
AUDIT = [
    {"id": 2, "at": AT, "actor": "root", "action": "key.revoke", "tenant": "default", "subject": "gw_cd34fg56",
     "before": {"name": "old", "status": "active", "overrides": {"price": "0.001"}},
     "after": {"name": "old", "status": "revoked", "overrides": {}}, "sha256": "cd" * 32},
    {"id": 1, "at": AT, "actor": "token:laptop", "action": "service.add", "tenant": "default", "subject": "orders",
     "before": None, "after": {"slug": "orders"}, "sha256": NOTED},
]  # fmt: skip


def token(public_id: str, name: str, role: str, tenant: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": f"tok_{public_id}", "name": name, "role": role, "tenant": tenant, "created_at": AT,
            "created_by": "root", "expires_at": None, "last_used_at": None, "status": "active", **more}  # fmt: skip


def fresh_tokens() -> list[dict[str, Any]]:
    return [
        token("cd34fg56", "acme-ci", "viewer", "acme", last_used_at=AT),
        token("ab12cd34", "laptop", "operator", expires_at="2027-02-19T02:00:00Z"),
        token("bc23df45", "old", "admin", status="revoked"),
    ]


def answer(
    state: dict[str, Any], method: str, path: str, query: Mapping[str, str], body: Any
) -> tuple[int, Any] | None:
    """Status and JSON, where it is one of these that was asked for; raises ProblemError."""
    if path == "/v1/whoami":
        return 200, {"actor": "token:laptop", "role": "operator", "tenant": None, "via": "token",
                     "expires_at": "2027-02-19T02:00:00Z"}  # fmt: skip
    if path == "/v1/audit/verify":
        return 200, _verified(state, query)
    if path == "/v1/audit" and "after" in query:
        older = [line for line in state["audit"] if line["id"] < int(query["after"])]
        return 200, {"items": older[: int(query.get("limit", 100))], "next": None}
    if path == "/v1/tokens" and method == "POST":
        return 201, _created(state, body)
    if method == "DELETE" and path.startswith("/v1/tokens/"):
        return 200, _revoked(state, unquote(path.rpartition("/")[2]), query)
    return None


def _created(state: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    if any(each["name"] == body["name"] and each["status"] == "active" for each in state["tokens"]):
        raise ProblemError(409, "conflict", f"token '{body['name']}' exists already")
    made = token("nw22pq33", body["name"], body["role"], body.get("tenant"), expires_at=body.get("expires_at"))
    state["tokens"].insert(0, made)
    return {**made, "token": SECRET}


def _revoked(state: dict[str, Any], reference: str, query: Mapping[str, str]) -> dict[str, Any]:
    for each in state["tokens"]:
        if reference in (each["id"], each["name"]):
            if each["status"] == "revoked":
                raise ProblemError(409, "conflict", f"token '{each['name']}' was revoked at {AT}")
            if query.get("dry_run") != "true":
                each["status"] = "revoked"
            return dict(each)
    raise ProblemError(404, "not_found", f"there is no token '{reference}'")


def _verified(state: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    differences = list(state.get("audit_differences", []))
    noted = query.get("sha256")
    if noted is not None and noted not in [line["sha256"] for line in state["audit"]]:
        differences.append(
            {"id": None, "expected": noted, "found": None, "detail": "the noted hash is that of no line"}
        )
    return {"ok": not differences, "lines": len(state["audit"]), "sha256": "cd" * 32, "differences": differences}
