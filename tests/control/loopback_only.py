"""Hooks of schemathesis: whatever it makes up, nothing is called but this machine, and half of it is of what is there.

Targets are probed and webhooks posted to, so each URL that a body names becomes one of a port where nobody listens.
What is left as it was is none that the admin API takes: it holds a space, a control or a letter that is no ASCII, or
is too short or too long (`TargetUrl`). The tests that use this look in the database afterwards.

Names out of nothing are names of nothing, and the simplest are soon taken: an API that is asked with those alone
answers 404 and 409.
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
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_present: dict[str, str] = json.loads(os.environ.get(PRESENT, "{}"))
_NAMES = {"tenant": "tenants", "plan": "plans", "default_plan": "plans", "service": "services", "services": "services",
          "key": "keys", "target": "targets"}  # fmt: skip
# What others would find nothing of afterwards.
_ENDS = re.compile(r"DELETE .*|.*/revoke")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    operation = f"{case.method.upper()} {case.operation.path}"
    if isinstance(case.body, dict | list):
        case.body = at_home(case.body)
    if isinstance(case.body, dict) and operation.startswith("POST"):
        _name_anew(case.body)
    noun = (*case.operation.path.split("/"), "", "")[2]
    for parameter, known in (("ref", {"quotas": "keys"}.get(noun, noun)), ("number", noun)):
        written = case.path_parameters.get(parameter)
        if isinstance(written, str) and not _ENDS.fullmatch(operation):
            case.path_parameters[parameter] = _one_that_is_there(written, known)
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
    return _one_that_is_there(_nobody(value) if name in _URLS else value, _NAMES.get(name, ""))


def _name_anew(body: dict[str, Any]) -> None:
    """In half of all cases, as another body is called otherwise."""
    for member in ("slug", "name"):
        name, of = body.get(member), _digest(json.dumps(body))
        if isinstance(name, str) and _NAME.fullmatch(name) and int(of, 16) % 2:
            body[member] = f"{name}-{of}"


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
