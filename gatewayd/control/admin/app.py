"""The admin API as an application: its operations, and what stands around all of them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from gatewayd.control.admin.addresses import routes_of
from gatewayd.control.admin.admission import Admission
from gatewayd.control.admin.operations import OPERATIONS, Operation
from gatewayd.control.admin.problems import (
    NoTraceback,
    answer_database_error,
    answer_gateway_error,
    answer_http_exception,
)
from gatewayd.control.admin.state import ControlState
from gatewayd.control.admin.turns import ChangesWait
from gatewayd.errors import GatewayError


def build_app(control: ControlState, operations: Sequence[Operation] = OPERATIONS) -> Starlette:
    app = Starlette(
        routes=routes_of(operations),
        middleware=[
            Middleware(NoTraceback),
            Middleware(Admission, control, operations),
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
