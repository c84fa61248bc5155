"""What scripts rely on: whatever `-o json` prints is as `/openapi.json` says of the operation that it comes from.

A list is `{"items": [...]}` of what the operation's pages hold, or of its answers where a command asks for several.
What was removed is printed as it was read before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.control.conformance import check_body, operation_at
from tests.gatectl.test_golden import COMMANDS, GOLDEN, file_name

# The longest beginning counts. A schema's name stands where a command shows a part of an answer.
SOURCES: dict[str, str] = {
    "status": "GET /v1/status",
    "doctor": "GET /v1/doctor",
    "doctor --acknowledge": "POST /v1/doctor/acknowledge",
    "top": "GET /v1/top",
    "logs": "GET /v1/logs",
    "service list": "GET /v1/services",
    "service show": "GET /v1/services/x",
    "service add": "POST /v1/services",
    "service set": "PATCH /v1/services/x",
    "service remove": "GET /v1/services/x",
    "service health": "GET /v1/targets",
    "service drain": "POST /v1/targets/drain",
    "route list": "GET /v1/routes",
    "route show": "GET /v1/routes/x",
    "route add": "POST /v1/routes",
    "route set": "PATCH /v1/routes/x",
    "route remove": "GET /v1/routes/x",
    "route test": "GET /v1/routes/test",
    "plan list": "GET /v1/plans",
    "plan add": "POST /v1/plans",
    "plan set": "PATCH /v1/plans/x",
    "plan remove": "GET /v1/plans/x",
    "plan show starter --versions": "GET /v1/plans/x/versions",
    "plan simulate": "POST /v1/plans/x/simulate",
    "key list": "GET /v1/keys",
    "key show": "GET /v1/keys/x",
    "key create": "POST /v1/keys",
    "key set": "PATCH /v1/keys/x",
    "key enable": "POST /v1/keys/x/enable",
    "key revoke": "POST /v1/keys/x/revoke",
    "key disable": "POST /v1/keys/x/disable",
    "key rotate": "POST /v1/keys/x/rotate",
    "client list": "GET /v1/clients",
    "client add": "POST /v1/clients",
    "client show": "GET /v1/clients/x",
    "client set": "PATCH /v1/clients/x",
    "client remove": "GET /v1/clients/x",
    "quota show": "GET /v1/quotas",
    "quota show ci": "GET /v1/quotas/x",
    "quota grant": "POST /v1/quotas/x/grants",
    "quota reset": "POST /v1/quotas/x/reset",
    "tenant list": "GET /v1/tenants",
    "tenant show": "GET /v1/tenants/x",
    "tenant add": "POST /v1/tenants",
    "tenant set": "PATCH /v1/tenants/x",
    "tenant resume": "PATCH /v1/tenants/x",
    "tenant remove": "GET /v1/tenants/x",
    "tenant suspend": "PATCH /v1/tenants/x",
    "usage show": "GET /v1/usage",
    "usage top": "GET /v1/usage/top",
    "usage verify": "GET /v1/usage/verify",
    "usage tail": "GET /v1/usage/tail",
    "usage export": "GET /v1/usage/export",
    "billing show": "GET /v1/billing",
    "billing keys": "GET /v1/billing/keys",
    "billing preview": "GET /v1/billing/preview",
    "billing forecast": "GET /v1/billing/forecast",
    "billing cycles": "GET /v1/billing/cycles",
    "billing ledger": "GET /v1/ledger",
    "billing close": "POST /v1/billing/close",
    "billing reset": "POST /v1/billing/reset",
    "billing invoice list": "GET /v1/invoices",
    "billing invoice show": "GET /v1/invoices/x",
    "billing credit add": "POST /v1/credits",
    "billing credit list": "BillCredit",
    "billing adjust": "POST /v1/credits",
    "billing verify": "GET /v1/billing/verify",
    "billing replay": "GET /v1/invoices/x/replay",
    "alert list": "GET /v1/alerts",
    "alert show": "GET /v1/alerts/x",
    "alert add": "POST /v1/alerts",
    "alert remove": "GET /v1/alerts/x",
    "alert test": "POST /v1/alerts/x/test",
    "config dump": "GET /v1/config",
    "config diff": "POST /v1/config/diff",
    "config apply": "POST /v1/config/apply",
    "config rollback": "POST /v1/config/rollback",
    "config history": "GET /v1/config/revisions",
    "config show": "GET /v1/config/revisions/x",
    "token list": "GET /v1/tokens",
    "token create": "POST /v1/tokens",
    "token revoke": "DELETE /v1/tokens/x",
    "audit list": "GET /v1/audit",
    "audit show": "AuditView",
    "audit verify": "GET /v1/audit/verify",
    "explain --key": "POST /v1/explain",
    "explain": "GET /v1/explain/x",
    "api /v1/services/orders": "GET /v1/services/x",
}


def _whole(members: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


# What is gatectl's own, and why. Nothing of these comes from the gateway as it stands.
_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
_PLACE = {"type": ["integer", "null"], "minimum": 1}
_MISTAKE = {"file": _TEXT, "line": _PLACE, "column": _PLACE, "pointer": _TEXT, "detail": _TEXT}
_ABOUT_A_BACKUP = {
    "created_at": {"type": "string", "format": "date-time"}, "gatewayd": _TEXT, "schema": _TEXT, "files": _COUNT,
    "size_bytes": _COUNT, "waiting_records": _COUNT,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    # The gateway answers a difference, or a problem whose pointers become places in the files.
    "config validate": {"valid": {"type": "boolean"}, "errors": {"type": "array", "items": _whole(_MISTAKE)}},
    # The gateway sends a tar; this is what was written, and what its manifest says.
    "backup": {"file": _TEXT, **_ABOUT_A_BACKUP},
    # It works on files, and no gateway runs then.
    "restore": {
        "state_dir": _TEXT, **_ABOUT_A_BACKUP, "kept": {"type": ["string", "null"]}, "dry_run": {"type": "boolean"},
    },
    # Of two programs; null: no gateway answers.
    "version": {"client": _TEXT, "gateway": {"type": ["string", "null"]}},
}  # fmt: skip
# What gatectl adds to what was answered.
ADDED: dict[str, set[str]] = {"billing credit list": {"period"}}


def source_of(command: str) -> tuple[str, str]:
    """The beginning of the command that is in the table, and what it comes from, which may be nothing."""
    known = [words for words in (*SOURCES, *OWN) if f"{command} ".startswith(f"{words} ")]
    assert known, f"say in SOURCES which operation the JSON of {command!r} comes from"
    words = max(known, key=len)
    return words, SOURCES.get(words, "")


@pytest.mark.parametrize("command", (*COMMANDS, "usage tail", "usage export"))
def test_json_is_what_its_operation_answers(command: str) -> None:
    path = GOLDEN / file_name(command, "json")
    words, source = source_of(command)
    if words in OWN:
        schema = _whole(OWN[words])
    elif " " not in source:
        schema = {"$ref": f"#/components/schemas/{source}"}
    else:
        operation = operation_at(*source.split(" "))
        assert operation is not None, f"{source} is not in the document"
        answers = [answer for status, answer in operation["responses"].items() if status in ("200", "201")]
        schema = next(iter(answers[0]["content"].values()))["schema"]
    for printed in _printed(path):
        check(command, schema, printed, ADDED.get(words, set()))


def check(command: str, schema: dict[str, Any], printed: Any, added: set[str]) -> None:
    if "x-lines" in schema:
        check_body(schema["x-lines"], printed, command)
    elif str(schema.get("$ref")).endswith("Page"):
        assert isinstance(printed["items"], list), f"{command} prints a list as something else"
        check_body(schema, {"next": None, **printed}, command)
    elif list(printed) == ["items"] and not str(schema.get("$ref")).endswith("Items"):
        for item in printed["items"]:
            check_body(schema, _without(item, added), command)
    else:
        check_body(schema, _without(printed, added), command)


def _without(printed: dict[str, Any], added: set[str]) -> dict[str, Any]:
    assert added <= printed.keys()
    return {name: value for name, value in printed.items() if name not in added}


def _printed(path: Path) -> list[Any]:
    """One JSON text, or one a line."""
    text = path.read_text()
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def test_every_file_of_json_is_compared() -> None:
    compared = {file_name(command, "json") for command in (*COMMANDS, "usage tail", "usage export")}
    assert {path.name for path in GOLDEN.glob("*.json")} == compared
