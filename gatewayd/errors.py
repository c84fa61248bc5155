"""The catalogue of problems: every refusal and error that gatewayd itself answers with, on either of its doors.

A problem becomes an RFC 9457 `application/problem+json` body. Its `code` is a promise: clients branch on it, the usage
journal stores its `number`, so neither is ever changed or used again. An upstream's own 4xx and 5xx are not problems;
they pass through untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of trouble: `code` for programs, `title` for people, `number` for the journal (16 bits, 0 is none)."""

    number: int
    code: str
    status: int
    title: str

    @property
    def type(self) -> str:
        return f"urn:gatewayd:problem:{self.code}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A guard's answer: this problem, with a detail for whoever reads it and headers of its own."""

    problem: Problem
    detail: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()


# Headers of a refusal that is over by the time a caller has come back.
RETRY_SOON = ((b"Retry-After", b"1"),)


class GatewayError(Exception):
    """A failure with a name. Raised where it is noticed; one place at each door turns it into a response."""

    def __init__(self, problem: Problem, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


# The data plane: what a caller of somebody's API may see. Numbers stand in journals: append, never renumber.
BAD_REQUEST = Problem(1, "bad_request", 400, "Malformed request")
MISSING_KEY = Problem(2, "missing_key", 401, "API key missing")
INVALID_KEY = Problem(3, "invalid_key", 401, "API key invalid")
EXPIRED_KEY = Problem(4, "expired_key", 401, "API key expired")
REVOKED_KEY = Problem(5, "revoked_key", 401, "API key revoked")
KEY_NOT_ALLOWED = Problem(6, "key_not_allowed", 403, "API key not allowed here")
TENANT_SUSPENDED = Problem(7, "tenant_suspended", 403, "Tenant suspended")
NO_ROUTE = Problem(8, "no_route", 404, "No route")
REQUEST_TIMEOUT = Problem(9, "request_timeout", 408, "Request took too long to arrive")
BODY_TOO_LARGE = Problem(10, "body_too_large", 413, "Request body too large")
TARGET_TOO_LONG = Problem(11, "target_too_long", 414, "Request target too long")
HEAD_TOO_LARGE = Problem(12, "head_too_large", 431, "Request header fields too large")
RATE_LIMITED = Problem(13, "rate_limited", 429, "Rate limit exceeded")
QUOTA_EXCEEDED = Problem(14, "quota_exceeded", 429, "Monthly rate limit exceeded")
UPSTREAM_UNREACHABLE = Problem(15, "upstream_unreachable", 502, "Upstream unreachable")
UPSTREAM_RESET = Problem(16, "upstream_reset", 502, "Upstream closed the connection")
UPSTREAM_INVALID = Problem(17, "upstream_invalid", 502, "Upstream sent an invalid response")
NO_HEALTHY_TARGET = Problem(18, "no_healthy_target", 503, "No healthy upstream")
OVERLOADED = Problem(19, "overloaded", 503, "Gateway overloaded")
DRAINING = Problem(20, "draining", 503, "Gateway draining")
JOURNAL_FULL = Problem(21, "journal_full", 503, "Usage cannot be recorded")
UPSTREAM_TIMEOUT = Problem(22, "upstream_timeout", 504, "Upstream timed out")
NOT_IMPLEMENTED = Problem(23, "not_implemented", 501, "Not implemented")
VERSION_NOT_SUPPORTED = Problem(24, "version_not_supported", 505, "HTTP version not supported")
ROUTE_NOT_ALLOWED = Problem(25, "route_not_allowed", 403, "Route not allowed")
ADDRESS_NOT_ALLOWED = Problem(26, "address_not_allowed", 403, "Address not allowed")
TOO_MANY_IN_FLIGHT = Problem(27, "too_many_in_flight", 429, "Too many requests in flight")
CIRCUIT_OPEN = Problem(28, "circuit_open", 503, "Circuit open")
DISABLED_KEY = Problem(29, "disabled_key", 401, "API key disabled")

# The admin API: what an operator may see.
INVALID = Problem(101, "invalid", 422, "Invalid value")
MALFORMED = Problem(102, "malformed", 400, "Malformed request")
NOT_FOUND = Problem(103, "not_found", 404, "Not found")
CONFLICT = Problem(104, "conflict", 409, "Conflict")
NOT_PERMITTED = Problem(105, "not_permitted", 403, "Not permitted")
METHOD_NOT_ALLOWED = Problem(106, "method_not_allowed", 405, "Method not allowed")
UNAVAILABLE = Problem(107, "unavailable", 503, "Unavailable for the moment")
INTERNAL = Problem(108, "internal", 500, "Internal error")
UNAUTHENTICATED = Problem(109, "unauthenticated", 401, "Not authenticated")
PRECONDITION_FAILED = Problem(110, "precondition_failed", 412, "It has changed meanwhile")
UNSUPPORTED_MEDIA_TYPE = Problem(111, "unsupported_media_type", 415, "Unsupported media type")

PROBLEMS: tuple[Problem, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Problem))
BY_NUMBER: Mapping[int, Problem] = {problem.number: problem for problem in PROBLEMS}


class StartupError(Exception):
    """The daemon cannot start. Carries one line that says what is wrong and what to do about it."""
