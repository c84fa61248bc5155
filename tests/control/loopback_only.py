"""Hooks of schemathesis: whatever it makes up, nothing is called but this machine.

Targets are probed and webhooks posted to, so each URL that a body names gets a host where nobody listens.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis

_HOST = re.compile(r"(?i)^(https?://)[^/?#]*")
_NOBODY = r"\g<1>127.0.0.1:9"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    if isinstance(case.body, dict):
        case.body = _at_home(case.body)


def _at_home(value: Any, name: str = "") -> Any:
    """At any depth: a configuration has the services of every tenant."""
    if isinstance(value, dict):
        if name == "weights":
            return {_HOST.sub(_NOBODY, url): weight for url, weight in value.items()}
        return {member: _at_home(each, member) for member, each in value.items()}
    if isinstance(value, list):
        return [_at_home(each, name) for each in value]
    return _HOST.sub(_NOBODY, value) if isinstance(value, str) and name in ("url", "target", "targets") else value
