"""The admin API at a glance."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from gatewayd.control.admin import (
    alerts,
    audit,
    billing,
    clients,
    doctor,
    explain,
    invoices,
    key_import,
    key_rotation,
    key_verification,
    keys,
    ledger,
    plans,
    quotas,
    routes,
    services,
    simulations,
    status,
    targets,
    tenants,
    usage,
    usage_export,
    usage_tail,
    usage_top,
)
from gatewayd.control.admin.peer import PeersOnly
from gatewayd.control.admin.problems import (
    NoTraceback,
    answer_database_error,
    answer_gateway_error,
    answer_http_exception,
)
from gatewayd.control.admin.state import ControlState
from gatewayd.control.admin.turns import ChangesWait
from gatewayd.errors import GatewayError

ROUTES = [
    Route("/healthz", status.healthz),
    Route("/readyz", status.readyz),
    Route("/v1/status", status.show),
    Route("/v1/doctor", doctor.examine),
    Route("/v1/tenants", tenants.list_),
    Route("/v1/tenants", tenants.add, methods=["POST"]),
    Route("/v1/tenants/{ref}", tenants.get),
    Route("/v1/tenants/{ref}", tenants.set_, methods=["PATCH"]),
    Route("/v1/tenants/{ref}", tenants.remove, methods=["DELETE"]),
    Route("/v1/services", services.list_),
    Route("/v1/services", services.add, methods=["POST"]),
    Route("/v1/services/{ref}", services.get),
    Route("/v1/services/{ref}", services.set_, methods=["PATCH"]),
    Route("/v1/services/{ref}", services.remove, methods=["DELETE"]),
    Route("/v1/routes", routes.list_),
    Route("/v1/routes", routes.add, methods=["POST"]),
    Route("/v1/routes/test", routes.test),
    Route("/v1/routes/{ref}", routes.get),
    Route("/v1/routes/{ref}", routes.set_, methods=["PATCH"]),
    Route("/v1/routes/{ref}", routes.remove, methods=["DELETE"]),
    Route("/v1/targets", targets.list_),
    Route("/v1/targets/drain", targets.drain, methods=["POST"]),
    Route("/v1/plans", plans.list_),
    Route("/v1/plans", plans.add, methods=["POST"]),
    Route("/v1/plans/{ref}", plans.get),
    Route("/v1/plans/{ref}", plans.set_, methods=["PATCH"]),
    Route("/v1/plans/{ref}", plans.remove, methods=["DELETE"]),
    Route("/v1/plans/{ref}/versions", plans.versions),
    Route("/v1/plans/{ref}/simulate", simulations.simulate, methods=["POST"]),
    Route("/v1/keys", keys.list_),
    Route("/v1/keys", keys.create, methods=["POST"]),
    Route("/v1/keys/import", key_import.progress),
    Route("/v1/keys/import", key_import.import_, methods=["POST"]),
    Route("/v1/keys/verify", key_verification.verify, methods=["POST"]),
    Route("/v1/keys/{ref}", keys.get),
    Route("/v1/keys/{ref}", keys.set_, methods=["PATCH"]),
    Route("/v1/keys/{ref}/disable", keys.disable, methods=["POST"]),
    Route("/v1/keys/{ref}/enable", keys.enable, methods=["POST"]),
    Route("/v1/keys/{ref}/revoke", keys.revoke, methods=["POST"]),
    Route("/v1/keys/{ref}/rotate", key_rotation.rotate, methods=["POST"]),
    Route("/v1/clients", clients.list_),
    Route("/v1/clients", clients.add, methods=["POST"]),
    Route("/v1/clients/{ref}", clients.get),
    Route("/v1/clients/{ref}", clients.set_, methods=["PATCH"]),
    Route("/v1/clients/{ref}", clients.remove, methods=["DELETE"]),
    Route("/v1/quotas", quotas.list_),
    Route("/v1/quotas/{ref}", quotas.get),
    Route("/v1/quotas/{ref}/grants", quotas.grant, methods=["POST"]),
    Route("/v1/quotas/{ref}/reset", quotas.reset, methods=["POST"]),
    Route("/v1/usage", usage.show),
    Route("/v1/usage/export", usage_export.export),
    Route("/v1/usage/tail", usage_tail.tail),
    Route("/v1/usage/top", usage_top.top),
    Route("/v1/usage/verify", usage.verify),
    Route("/v1/billing", billing.show),
    Route("/v1/billing/keys", billing.show_by_key),
    Route("/v1/billing/preview", billing.preview),
    Route("/v1/billing/forecast", billing.forecast),
    Route("/v1/billing/cycles", billing.cycles),
    Route("/v1/billing/close", billing.close, methods=["POST"]),
    Route("/v1/billing/reset", billing.reset, methods=["POST"]),
    Route("/v1/billing/verify", billing.verify),
    Route("/v1/invoices", invoices.list_),
    Route("/v1/invoices/{number}", invoices.get),
    Route("/v1/invoices/{number}/body", invoices.body),
    Route("/v1/invoices/{number}/replay", invoices.replay),
    Route("/v1/credits", ledger.add_credit, methods=["POST"]),
    Route("/v1/ledger", ledger.list_),
    Route("/v1/alerts", alerts.list_),
    Route("/v1/alerts", alerts.add, methods=["POST"]),
    Route("/v1/alerts/{ref}", alerts.get),
    Route("/v1/alerts/{ref}", alerts.remove, methods=["DELETE"]),
    Route("/v1/alerts/{ref}/test", alerts.test, methods=["POST"]),
    Route("/v1/alerts/{ref}/events", alerts.events),
    Route("/v1/audit", audit.list_),
    Route("/v1/explain", explain.what_if, methods=["POST"]),
    Route("/v1/explain/{request_id:path}", explain.recall),
]


def build_app(control: ControlState) -> Starlette:
    app = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(NoTraceback),
            Middleware(PeersOnly, control.settings.admin_socket),
            Middleware(ChangesWait, control.database),
        ],
        exception_handlers={
            GatewayError: answer_gateway_error,
            HTTPException: answer_http_exception,
            OperationalError: answer_database_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.control = control
    return app
