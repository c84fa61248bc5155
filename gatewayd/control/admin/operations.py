"""The admin API at a glance: every operation, who may do it, and how far it reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gatewayd.control.admin import (
    alerts,
    audit,
    backups,
    billing,
    clients,
    config,
    config_revisions,
    docs_page,
    doctor,
    explain,
    invoices,
    key_import,
    key_rotation,
    key_verification,
    keys,
    ledger,
    logs,
    names,
    plans,
    quotas,
    route_finding,
    routes,
    services,
    simulations,
    status,
    targets,
    tenants,
    tokens,
    top,
    usage,
    usage_export,
    usage_top,
)
from gatewayd.control.admin.callers import Reach, Role
from gatewayd.control.admin.documented import Said, said_of


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path, who answers it, and who may ask."""

    method: str
    path: str
    handler: Callable[..., Any]
    role: Role
    reach: Reach = "tenant"

    @property
    def said(self) -> Said | None:
        """What it says of itself, for the document."""
        return said_of(self.handler)


OPERATIONS = (
    Operation("GET", "/healthz", status.healthz, "anyone", "gateway"),
    Operation("GET", "/readyz", status.readyz, "anyone", "gateway"),
    Operation("GET", "/openapi.json", docs_page.document, "anyone", "gateway"),
    Operation("GET", "/docs", docs_page.page, "anyone", "gateway"),
    Operation("GET", "/docs/files/{file}", docs_page.file, "anyone", "gateway"),
    Operation("GET", "/v1/status", status.show, "viewer", "gateway"),
    Operation("GET", "/v1/doctor", doctor.examine, "viewer", "gateway"),
    Operation("POST", "/v1/doctor/acknowledge", doctor.acknowledge, "operator", "gateway"),
    Operation("GET", "/v1/top", top.top, "viewer", "gateway"),
    Operation("GET", "/v1/logs", logs.list_, "viewer"),
    Operation("GET", "/v1/whoami", tokens.whoami, "viewer", "caller"),
    Operation("GET", "/v1/tenants", tenants.list_, "viewer"),  # of one who is bound: its own alone
    Operation("POST", "/v1/tenants", tenants.add, "admin", "gateway"),
    Operation("GET", "/v1/tenants/{ref}", tenants.get, "viewer", "itself"),
    Operation("PATCH", "/v1/tenants/{ref}", tenants.set_, "admin", "itself"),
    Operation("DELETE", "/v1/tenants/{ref}", tenants.remove, "admin", "gateway"),
    Operation("GET", "/v1/services", services.list_, "viewer"),
    Operation("POST", "/v1/services", services.add, "operator"),
    Operation("GET", "/v1/services/{ref}", services.get, "viewer"),
    Operation("PATCH", "/v1/services/{ref}", services.set_, "operator"),
    Operation("DELETE", "/v1/services/{ref}", services.remove, "operator"),
    Operation("GET", "/v1/routes", routes.list_, "viewer"),
    Operation("POST", "/v1/routes", routes.add, "operator"),
    Operation("GET", "/v1/routes/test", route_finding.test, "viewer"),
    Operation("GET", "/v1/routes/{ref}", routes.get, "viewer"),
    Operation("PATCH", "/v1/routes/{ref}", routes.set_, "operator"),
    Operation("DELETE", "/v1/routes/{ref}", routes.remove, "operator"),
    Operation("GET", "/v1/targets", targets.list_, "viewer"),
    Operation("POST", "/v1/targets/drain", targets.drain, "operator"),
    Operation("GET", "/v1/plans", plans.list_, "viewer"),
    Operation("POST", "/v1/plans", plans.add, "operator"),
    Operation("GET", "/v1/plans/{ref}", plans.get, "viewer"),
    Operation("PATCH", "/v1/plans/{ref}", plans.set_, "operator"),
    Operation("DELETE", "/v1/plans/{ref}", plans.remove, "operator"),
    Operation("GET", "/v1/plans/{ref}/versions", plans.versions, "viewer"),
    Operation("POST", "/v1/plans/{ref}/simulate", simulations.simulate, "viewer"),
    Operation("GET", "/v1/keys", keys.list_, "viewer"),
    Operation("POST", "/v1/keys", keys.create, "operator"),
    Operation("GET", "/v1/keys/import", key_import.progress, "viewer"),
    Operation("POST", "/v1/keys/import", key_import.import_, "operator"),
    Operation("POST", "/v1/keys/verify", key_verification.verify, "viewer"),
    Operation("GET", "/v1/keys/{ref}", keys.get, "viewer"),
    Operation("PATCH", "/v1/keys/{ref}", keys.set_, "operator"),
    Operation("POST", "/v1/keys/{ref}/disable", keys.disable, "operator"),
    Operation("POST", "/v1/keys/{ref}/enable", keys.enable, "operator"),
    Operation("POST", "/v1/keys/{ref}/revoke", keys.revoke, "operator"),
    Operation("POST", "/v1/keys/{ref}/rotate", key_rotation.rotate, "operator"),
    Operation("GET", "/v1/clients", clients.list_, "viewer"),
    Operation("POST", "/v1/clients", clients.add, "operator"),
    Operation("GET", "/v1/clients/{ref}", clients.get, "viewer"),
    Operation("PATCH", "/v1/clients/{ref}", clients.set_, "operator"),
    Operation("DELETE", "/v1/clients/{ref}", clients.remove, "operator"),
    Operation("GET", "/v1/quotas", quotas.list_, "viewer"),
    Operation("GET", "/v1/quotas/{ref}", quotas.get, "viewer"),
    Operation("POST", "/v1/quotas/{ref}/grants", quotas.grant, "operator"),
    Operation("POST", "/v1/quotas/{ref}/reset", quotas.reset, "operator"),
    Operation("GET", "/v1/usage", usage.show, "viewer"),
    Operation("GET", "/v1/usage/export", usage_export.export, "viewer"),
    Operation("GET", "/v1/usage/tail", logs.tail, "viewer"),
    Operation("GET", "/v1/usage/top", usage_top.top, "viewer"),
    Operation("GET", "/v1/usage/verify", usage.verify, "viewer"),
    Operation("GET", "/v1/billing", billing.show, "viewer"),
    Operation("GET", "/v1/billing/keys", billing.show_by_key, "viewer"),
    Operation("GET", "/v1/billing/preview", billing.preview, "viewer"),
    Operation("GET", "/v1/billing/forecast", billing.forecast, "viewer"),
    Operation("GET", "/v1/billing/cycles", billing.cycles, "viewer"),
    Operation("POST", "/v1/billing/close", billing.close, "admin"),
    Operation("POST", "/v1/billing/reset", billing.reset, "admin"),
    Operation("GET", "/v1/billing/verify", billing.verify, "viewer"),
    Operation("GET", "/v1/invoices", invoices.list_, "viewer"),
    Operation("GET", "/v1/invoices/{number}", invoices.get, "viewer"),
    Operation("GET", "/v1/invoices/{number}/body", invoices.body, "viewer"),
    Operation("GET", "/v1/invoices/{number}/replay", invoices.replay, "viewer"),
    Operation("POST", "/v1/credits", ledger.add_credit, "admin"),
    Operation("GET", "/v1/ledger", ledger.list_, "viewer"),
    Operation("GET", "/v1/alerts", alerts.list_, "viewer"),
    Operation("POST", "/v1/alerts", alerts.add, "operator"),
    Operation("GET", "/v1/alerts/{ref}", alerts.get, "viewer"),
    Operation("DELETE", "/v1/alerts/{ref}", alerts.remove, "operator"),
    Operation("POST", "/v1/alerts/{ref}/test", alerts.test, "operator"),
    Operation("GET", "/v1/alerts/{ref}/events", alerts.events, "viewer"),
    Operation("GET", "/v1/config", config.show, "viewer", "gateway"),
    Operation("POST", "/v1/config/diff", config.diff, "viewer", "gateway"),
    Operation("POST", "/v1/config/apply", config.apply, "admin", "gateway"),
    Operation("GET", "/v1/config/progress", config.progress, "viewer", "gateway"),
    Operation("GET", "/v1/config/revisions", config_revisions.revisions, "viewer", "gateway"),
    Operation("GET", "/v1/config/revisions/{number}", config_revisions.revision, "viewer", "gateway"),
    Operation("POST", "/v1/config/rollback", config.rollback, "admin", "gateway"),
    Operation("GET", "/v1/names", names.list_, "viewer"),
    Operation("GET", "/v1/tokens", tokens.list_, "admin", "gateway"),
    Operation("POST", "/v1/tokens", tokens.create, "admin", "gateway"),
    Operation("DELETE", "/v1/tokens/{ref}", tokens.revoke, "admin", "gateway"),
    Operation("POST", "/v1/backup", backups.make, "admin", "gateway"),
    Operation("GET", "/v1/audit", audit.list_, "viewer"),
    Operation("GET", "/v1/audit/verify", audit.verify, "viewer", "gateway"),
    Operation("POST", "/v1/explain", explain.what_if, "viewer", "gateway"),
    Operation("GET", "/v1/explain/{request_id:path}", explain.recall, "viewer", "gateway"),
)
