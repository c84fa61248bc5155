"""Answers of the fake daemon that are problems."""

from __future__ import annotations

from typing import Any


class ProblemError(Exception):
    """An answer that is a problem."""

    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"type": f"urn:gatewayd:problem:{code}", "title": code, "status": status, "detail": detail,
                     "code": code, **more}  # fmt: skip
