"""What a viewer is not shown: what opens the door of somebody else.

The value of a request header rule may be the upstream's credential, and so may the query of a health check's path; the
path of a webhook's URL may be the receiver's. As one who may look at a cluster is not shown its Secrets, a viewer is
shown that they are there, and `HIDDEN` in their place. Operators and admins, who could send them anywhere, see them.
They stand in views, in documents of the configuration and in lines of the audit; the rows are as they are, so the
audit's chain holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request

from gatewayd.control.admin.callers import caller_of
from gatewayd.policy.differences import Difference
from gatewayd.policy.header_rules import HIDDEN

_RULES, _HEALTH = "request_headers", "health"
_NAMED = (b'"request_headers"', b'"health"')  # in JSON
_top = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tenants = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_objects = msgspec.json.Decoder(list[msgspec.Raw])

V = TypeVar("V", bound=msgspec.Struct)


def hides(request: Request) -> bool:
    """Whether who asks is not to see."""
    return not caller_of(request).may("operator")


def of_service(view: V) -> V:
    """Its view, without the values of its request header rules and the query of its health check."""
    rules = [msgspec.structs.replace(rule, value=HIDDEN) if rule.value else rule for rule in getattr(view, _RULES)]
    health = getattr(view, _HEALTH)
    return msgspec.structs.replace(
        view, **{_RULES: tuple(rules), _HEALTH: msgspec.structs.replace(health, path=_of_path(health.path))}
    )


def of_alert(view: V) -> V:
    """Its view, without the path of its URL."""
    return msgspec.structs.replace(view, url=_of_url(view.url))  # type: ignore[attr-defined]


def of_definition(service: Mapping[str, Any]) -> dict[str, Any]:
    """A service as a document defines it, or as the audit has it."""
    return {name: _of_field(name, value) for name, value in service.items()}


def of_document(document: bytes) -> bytes:
    """A document of the configuration. By the service: one long call would keep the interpreter's lock."""
    if not _may_hold(document):
        return document
    top = _top.decode(document)
    tenants = _tenants.decode(top["tenants"])
    for tenant in tenants:
        if _may_hold(bytes(tenant.get("services", b""))):
            tenant["services"] = msgspec.Raw(b"[%s]" % b",".join(map(_of_service, _objects.decode(tenant["services"]))))
    return msgspec.json.encode({**top, "tenants": tenants})


def of_difference(difference: Difference) -> Difference:
    """What was there is hidden; what is wanted is the viewer's own word."""
    if difference.kind != "service":
        return difference
    fields = tuple(
        msgspec.structs.replace(each, before=_of_field(each.field, each.before)) for each in difference.fields
    )
    return msgspec.structs.replace(difference, fields=fields)


def of_audited(action: str, told: str | None) -> str | None:
    """What a line of the audit has of a subject, before or after."""
    noun = action.partition(".")[0]
    if told is None or noun not in ("service", "alert"):
        return told
    shown = msgspec.json.decode(told)
    if noun == "service":
        shown = of_definition(shown)
    elif "url" in shown:
        shown["url"] = _of_url(shown["url"])
    return msgspec.json.encode(shown).decode()


def _of_service(service: msgspec.Raw) -> bytes:
    if not _may_hold(bytes(service)):
        return bytes(service)
    return msgspec.json.encode(of_definition(msgspec.json.decode(service)))


def _may_hold(written: bytes) -> bool:
    return any(name in written for name in _NAMED)


def _of_field(name: str, value: Any) -> Any:
    if name == _RULES:
        return _of_rules(value)
    if name == _HEALTH and value and value.get("path"):
        return {**value, "path": _of_path(value["path"])}
    return value


def _of_path(path: str | None) -> str | None:
    before, mark, _ = (path or "").partition("?")
    return f"{before}?{HIDDEN}" if mark else path


def _of_rules(rules: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """A rule without a value, such as one that removes a header, has nothing to hide."""
    if rules is None:
        return None
    return [{**rule, "value": HIDDEN} if rule.get("value") else dict(rule) for rule in rules]


def _of_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.path in ("", "/") and not parts.query:
        return url
    return f"{parts.scheme}://{parts.netloc}/{HIDDEN}"
