"""What the fake daemon answers of the whole configuration: a small one, compared object by object."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from copy import deepcopy
from hashlib import sha256
from typing import Any

from tests.gatectl.problems import ProblemError

CREATED = "2026-11-21T02:00:00Z"
SECTIONS = ("services", "plans", "routes", "keys")


def fresh_config() -> dict[str, Any]:
    acme = {
        "slug": "acme",
        "currency": "EUR",
        "services": [{"slug": "shop", "targets": ["https://shop.acme.example"]}],
        "plans": [],
        "routes": [],
        "keys": [{"name": "till", "services": ["shop"]}],
    }
    default = {
        "slug": "default",
        "default_plan": "starter",
        "services": [
            {"slug": "orders", "targets": ["http://127.0.0.1:8001"], "timeout_s": 5},
            {
                "slug": "products",
                "targets": ["http://127.0.0.1:8002", "http://127.0.0.1:8003"],
                "health": {"path": "/up", "interval_s": 5},
            },
        ],
        "plans": [
            {"name": "pro", "rates": ["50/s burst 100"], "price": "0.0005"},
            {"name": "starter", "rates": ["60/min burst 10", "10/s"], "quota": 10000, "alerts": [80, 100]},
        ],
        "routes": [{"name": "reads", "path": "/v1", "service": "orders", "methods": ["GET", "HEAD"]}],
        "keys": [{"name": "ci", "services": ["orders"], "plan": "starter", "labels": {"team": "a", "on": "010"}}],
    }
    return {"version": 1, "tenants": [acme, default]}


class FakeConfig:
    """`document` is the configuration; `revisions` its history, the newest first."""

    def __init__(self) -> None:
        self.document = fresh_config()
        self.revisions: list[dict[str, Any]] = []
        self.gate = threading.Event()  # an apply waits for it
        self.gate.set()
        self.applying = threading.Event()
        self.change_after_diff = False
        for kind, message, changes in (
            ("found", "", (0, 0, 0)), ("apply", "shop opens", (3, 0, 0)), ("rollback", "", (0, 1, 1)),
        ):  # fmt: skip
            self._keep(kind, message, self.document, changes, 1 if kind == "rollback" else None)

    @property
    def base(self) -> str:
        return sha256(json.dumps(self.document).encode()).hexdigest()[:16]

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> tuple[int, Any]:
        """Status and JSON of an answer; raises ProblemError."""
        if isinstance(body, str):
            body = json.loads(body)
        match path.removeprefix("/v1/config").split("/")[1:]:
            case []:
                return 200, _of_tenant(self.document, query)
            case ["progress"]:
                busy = {"state": "storing", "done": 1, "of": 4} if self.applying.is_set() else {"state": "idle"}
                return 200, {"done": 0, "of": 0, **busy}
            case ["diff"]:
                answer = self._compared(body, query)
                if self.change_after_diff:
                    self.document["tenants"][0]["currency"] = "JPY"
                return 200, answer
            case ["apply"]:
                return 200, self._applied(body, query, "apply", None)
            case ["rollback"]:
                revision = self._revision(body["number"])
                query = {**query, "prune": "true"}
                return 200, self._applied(revision["document"], query, "rollback", revision["number"])
            case ["revisions"]:
                items = [_listed(each) for each in self.revisions]
                return 200, {"items": items[: int(query.get("limit", 100))], "next": None}
            case ["revisions", number]:
                return 200, self._revision(int(number))
        raise ProblemError(404, "not_found", f"there is nothing at {path}")

    def _revision(self, number: int) -> dict[str, Any]:
        for revision in self.revisions:
            if revision["number"] == number:
                return revision
        raise ProblemError(404, "not_found", f"there is no revision {number} of the configuration")

    def _compared(self, document: Any, query: Mapping[str, str]) -> dict[str, Any]:
        if errors := [*_errors(document), *_left_out(self.document, document, query)]:
            detail = "; ".join(each["detail"] for each in errors)
            raise ProblemError(422, "invalid", detail, errors=errors)
        differences = list(_differences(self.document, document, query))
        counts = {
            name: sum(each["change"] == change for each in differences)
            for name, change in (("added", "add"), ("changed", "set"), ("removed", "remove"))
        }
        return {"differences": differences, **counts, "base": self.base}

    def _applied(self, document: Any, query: Mapping[str, str], kind: str, restored: int | None) -> dict[str, Any]:
        answer = self._compared(document, query)
        if query.get("base", self.base) != self.base:
            raise ProblemError(
                409, "conflict", "the configuration has changed since it was compared; compare again, then apply"
            )
        if not answer["differences"] or query.get("dry_run") == "true":
            return {"revision": None, **answer}
        self.applying.set()
        self.gate.wait(20)
        self.applying.clear()
        self.document = _merged(self.document, document, query)
        changes = (answer["added"], answer["changed"], answer["removed"])
        self._keep(kind, query.get("message", ""), self.document, changes, restored)
        return {"revision": _listed(self.revisions[0]), **answer}

    def _keep(self, kind: str, message: str, document: Any, changes: Any, restored: int | None) -> None:
        number = len(self.revisions) + 1
        added, changed, removed = changes
        self.revisions.insert(0, {
            "id": number, "number": number, "at": CREATED, "actor": "root", "kind": kind, "message": message,
            "restored": restored, "added": added, "changed": changed, "removed": removed,
            "document": deepcopy(document),
        })  # fmt: skip


def _listed(revision: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in revision.items() if name != "document"}


def _of_tenant(document: Any, query: Mapping[str, str]) -> Any:
    wanted = query.get("tenant")
    return {**document, "tenants": [each for each in document["tenants"] if wanted in (None, each["slug"])]}


def _errors(document: Any) -> Iterator[dict[str, str]]:
    if document.get("version") != 1:
        yield {"pointer": "/version", "detail": "version must be 1"}
    for index, tenant in enumerate(document.get("tenants", [])):
        for section in SECTIONS:
            if not isinstance(tenant.get(section, []), list):
                yield {"pointer": f"/tenants/{index}/{section}", "detail": f"{section} must be a list"}
        for position, service in enumerate(tenant.get("services") or []):
            at = f"/tenants/{index}/services/{position}"
            if "slug" not in service:
                yield {"pointer": at, "detail": "slug is missing"}
            if not isinstance(service.get("timeout_s", 1), (int, float)):
                yield {"pointer": f"{at}/timeout_s", "detail": "timeout_s must be a number, not a string"}
            for field in service.keys() - {"slug", "targets", "timeout_s", "health", "auth", "paths"}:
                yield {"pointer": f"{at}/{field}", "detail": f"{field!r} is not known here"}


def _left_out(ours: Any, theirs: Any, query: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for slug in sorted(_slugs(_of_tenant(ours, query)) - _slugs(theirs)) if query.get("prune") == "true" else ():
        yield {"pointer": "/tenants", "detail": f"tenant '{slug}' is not in the document, and is not pruned"}


def _objects(document: Any) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = {}
    for tenant in document["tenants"]:
        slug = tenant["slug"]
        found["tenant", slug, slug] = {name: held for name, held in tenant.items() if name not in SECTIONS}
        for section in SECTIONS:
            for each in tenant.get(section, ()):
                found[section[:-1], slug, each.get("slug") or each["name"]] = each
    return found


def _differences(ours: Any, theirs: Any, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    before, after = _objects(_of_tenant(ours, query)), _objects(theirs)
    managed = {(section[:-1], tenant["slug"]) for tenant in theirs["tenants"] for section in tenant}
    for (kind, tenant, name), held in after.items():
        was = before.get((kind, tenant, name))
        fields = [
            {"field": field, "before": (was or {}).get(field), "after": held.get(field)}
            for field in dict.fromkeys((*(was or {}), *held))
            if (was or {}).get(field) != held.get(field)
        ]
        if was is None or fields:
            yield _difference(kind, tenant, name, "add" if was is None else "set", fields)
    for (kind, tenant, name), held in reversed(before.items()):
        if query.get("prune") == "true" and (kind, tenant, name) not in after and (kind, tenant) in managed:
            fields = [{"field": field, "before": value, "after": None} for field, value in held.items()]
            yield _difference(kind, tenant, name, "remove", fields)


def _difference(kind: str, tenant: str, name: str, change: str, fields: Any) -> dict[str, Any]:
    return {"kind": kind, "tenant": tenant, "name": name, "change": change, "fields": fields}


def _merged(ours: Any, theirs: Any, query: Mapping[str, str]) -> dict[str, Any]:
    """As the differences say."""
    merged: dict[str, Any] = deepcopy(ours)
    by_slug = {tenant["slug"]: tenant for tenant in merged["tenants"]}
    for tenant in theirs["tenants"]:
        if tenant["slug"] not in by_slug:
            by_slug[tenant["slug"]] = {"slug": tenant["slug"], **{section: [] for section in SECTIONS}}
            merged["tenants"].append(by_slug[tenant["slug"]])
        held = by_slug[tenant["slug"]]
        for name, value in tenant.items():
            if name not in SECTIONS:
                held[name] = value
                continue
            named = {each.get("slug") or each["name"]: each for each in value}
            kept = [] if query.get("prune") == "true" else held[name]
            by_name = {each.get("slug") or each["name"]: each for each in kept} | named
            held[name] = [by_name[each] for each in sorted(by_name)]
    merged["tenants"].sort(key=lambda each: str(each["slug"]))
    return merged


def _slugs(document: Any) -> set[str]:
    return {tenant["slug"] for tenant in document["tenants"]}
