"""Hooks of schemathesis: whatever it makes up, nothing is called but this machine, and half of it is of what is there.

Targets are probed and webhooks posted to, so each URL that a body names becomes one of a port where nobody listens.
What is left as it was is none that the admin API takes: it holds a space, a control or a letter that is no ASCII, or
is too short or too long (`TargetUrl`). The tests that use this look in the database afterwards.

Names out of nothing are names of nothing: an API that is asked for those alone answers 404.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any

import schemathesis

NOBODY = "http://127.0.0.1:9/"
PRESENT = "SCHEMATHESIS_PRESENT"  # what there is, by noun, in JSON
_MAY_BE_URL = re.compile(r"[\x21-\x7e]{6,2048}")
_URLS = ("url", "target", "targets")
# What comes of a call before, by a link.
_ID = re.compile(r"[a-z]{3}_[a-z2-9]{8}")
_present: dict[str, str] = json.loads(os.environ.get(PRESENT, "{}"))
_NAMES = {"tenant": "tenants", "plan": "plans", "default_plan": "plans", "service": "services", "services": "services",
          "key": "keys"}  # fmt: skip
# What others would find nothing of afterwards.
_ENDS = re.compile(r"DELETE .*|.*/revoke")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    if isinstance(case.body, dict | list):
        case.body = at_home(case.body)
    noun = case.operation.path.split("/")[2:3]
    ref = case.path_parameters.get("ref")
    if isinstance(ref, str) and not _ENDS.fullmatch(f"{case.method.upper()} {case.operation.path}"):
        case.path_parameters["ref"] = _one_that_is_there(ref, {"quotas": "keys"}.get(noun[0], noun[0]))
    for name, known in _NAMES.items():
        if isinstance(case.query.get(name), str):
            case.query[name] = _one_that_is_there(case.query[name], known)


def at_home(value: Any, name: str = "") -> Any:
    """At any depth: a configuration has the services of every tenant."""
    if isinstance(value, dict):
        if name == "weights":
            return {_nobody(url): weight for url, weight in value.items()}
        return {member: at_home(each, member) for member, each in value.items()}
    if isinstance(value, list):
        return [at_home(each, name) for each in value]
    if not isinstance(value, str):
        return value
    return _nobody(value) if name in _URLS else _one_that_is_there(value, _NAMES.get(name, ""))


def _nobody(url: str) -> str:
    """Another for each, or a service would have one twice."""
    return NOBODY + _digest(url) if _MAY_BE_URL.fullmatch(url) else url


def _one_that_is_there(written: str, noun: str) -> str:
    """In half of all cases, and the same for the same."""
    if noun not in _present or _ID.fullmatch(written) or int(_digest(written), 16) % 2:
        return written
    return _present[noun]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
