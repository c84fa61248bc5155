"""What a handler answers with."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response


def answer(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def created(value: Any) -> Response:
    return answer(value, 201)
