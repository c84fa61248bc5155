"""The document of the admin API, OpenAPI 3.1, made of the list of operations and of what handlers say of themselves.

Nothing here is written twice: paths, methods and roles are those of the list, parameters and bodies are the Structs
that handlers read with, and which problems an operation may answer follows from what it does. It is made when somebody
first asks for it; its makers, beside this module, are loaded then.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gatewayd import __version__
from gatewayd.control.admin.documented import JSON, Said
from gatewayd.control.admin.operations import OPERATIONS, Operation
from gatewayd.control.admin.spelling import NOT_WHOLE
from gatewayd.errors import (
    BODY_TOO_LARGE,
    CONFLICT,
    INVALID,
    MALFORMED,
    NOT_FOUND,
    NOT_PERMITTED,
    PRECONDITION_FAILED,
    RATE_LIMITED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
)

Schema = dict[str, Any]

_DESCRIPTION = """\
What `gatectl` speaks, and whoever else operates the gateway.

On the Unix socket the caller's user decides what it may do, and no credentials are sent. On TCP it is a token.
Lists come in pages: `next` of one is `after` of the next. Times are RFC 3339 in UTC, money is a decimal string.
Errors are problem+json (RFC 9457); clients branch on `code`. An address that does not answer a method says 405, and in
`Allow` which it answers. A name in a query that is not known is refused, as is one that is given twice.

What shows one object has an `ETag`. `If-None-Match` with it answers 304 while nothing is different. `If-Match` with it
lets a change through only if nobody else has made one: what moves of itself, as the usage of a key does, does not
count. Who sends none overwrites. Where nothing has a tag, as where something is made, `If-Match` is refused.

A viewer sees `<hidden from viewers>` where a credential may be: in place of the values of request header rules and of
the queries of health checks, also in the configuration, its revisions and the audit, and of the paths of webhooks.
Nobody can set that as a value.
"""
_REF = "#/components/schemas/"
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "gwt_...", "description": "A token, on TCP."},
    "token": {"type": "apiKey", "in": "header", "name": "X-Admin-Token", "description": "A token, on TCP."},
}
_TAG = r'^(W/)?"[!#-~]*"$'
_CONDITIONS = {
    "If-None-Match": "`*`, or tags with commas between: 304 if the object has one of them.",
    "If-Match": "`*`, or tags with commas between: 412 unless the object has one of them. A weak tag is none of its.",
}
_IS_TIME = re.compile(r"(.*_)?(at|since|until|before|time|as_of)")
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
# An answer of which nothing is said but its media type: a JSON object, or a text.
_FREE: tuple[Schema, Schema] = ({"type": "string"}, {"type": "object"})
# What is made where, and the addresses of one.
_NOUNS = ("tenants", "services", "routes", "plans", "keys", "clients", "alerts", "tokens")
_MADE = {f"/v1/{noun}": f"/v1/{noun}/{{ref}}" for noun in _NOUNS}
_OF_KEYS = ("/v1/keys/{ref}", "/v1/quotas/{ref}")
_PATH_WORDS = {
    "ref": "Its name or id.",
    "number": "Its number.",
    "request_id": "The X-Request-Id of its answer.",
    "file": "One of those that the page consists of.",
}


class Mistake(msgspec.Struct):
    """One of several in a document. `pointer` is where (RFC 6901)."""

    pointer: str
    detail: str


class ProblemView(msgspec.Struct, kw_only=True):
    """RFC 9457. `code` is a promise, `detail` is for people. `field`: what is wrong; `did_you_mean`: a name near it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    did_you_mean: str | msgspec.UnsetType = msgspec.UNSET
    errors: list[Mistake] | msgspec.UnsetType = msgspec.UNSET


@functools.cache
def encoded(*, by_token: bool) -> bytes:
    """The document. `by_token`: as it is where a connection says nothing of who is asking."""
    return msgspec.json.encode(document(OPERATIONS, by_token=by_token))


def document(operations: Sequence[Operation], *, by_token: bool = False) -> dict[str, Any]:
    told = [(operation, said) for operation in operations if (said := operation.said) is not None]
    schemas = _Schemas([said for _, said in told])
    paths: dict[str, dict[str, Any]] = {}
    for operation, said in told:
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, said, schemas, by_token)
    _link(operations, paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": "gatewayd", "version": __version__, "description": _DESCRIPTION, "license": {"name": "MIT"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(_noun(operation.path) for operation, _ in told)],
        "paths": paths,
        "components": {"schemas": schemas.components, "securitySchemes": _SECURITY},
    }


def _link(operations: Sequence[Operation], paths: dict[str, dict[str, Any]]) -> None:
    """From what makes an object to what is done with it: by its id, in its tenant."""
    for made_at, below in _MADE.items():
        made = paths.get(made_at, {}).get("post")
        answer = None if made is None else made["responses"].get("201")
        if answer is None:
            continue
        for operation in operations:
            if operation.path.startswith(below) and operation.said is not None:
                parameters = {"path.ref": "$response.body#/id"}
                if operation.reach == "tenant":
                    parameters["query.tenant"] = "$response.body#/tenant"
                name = _operation_id(operation)
                answer.setdefault("links", {})[name] = {"operationId": name, "parameters": parameters}


def undocumented(operations: Sequence[Operation]) -> list[str]:
    """Operations that say nothing of themselves."""
    return [f"{operation.method} {operation.path}" for operation in operations if operation.said is None]


class _Schemas:
    """The schemas of all bodies and answers, by name; of queries, which have none."""

    def __init__(self, every: Sequence[Said]) -> None:
        self._answers = [kind for said in every for kind in (said.answer, *said.lines) if kind is not None]
        bodies = [said.body for said in every if said.body is not None]
        types = [*self._answers, *bodies, ProblemView]
        found, components = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
        asked = _reached(list(found[len(self._answers) : -1]), components)
        for name, schema in components.items():
            _tell_times(schema)
            if name not in asked and name != "ProblemView":
                _tell_all(schema)
        # `Page_KeyView_`, as msgspec names Page[KeyView], is no name for people.
        renamed = {name: re.sub(r"(\w+?)_(\w+)_", r"\2\1", name) for name in components}
        renamed["ProblemView"] = "Problem"
        self.components = {renamed[name]: _renamed(schema, renamed) for name, schema in sorted(components.items())}
        self._of = {repr(kind): _renamed(schema, renamed) for kind, schema in zip(types, found, strict=True)}

    def of(self, kind: Any) -> Schema:
        found: Schema = self._of[repr(kind)]
        return found

    @staticmethod
    def parameters(query: Any) -> Iterator[Schema]:
        """Of a query: its Struct has a field for each."""
        (found,), components = msgspec.json.schema_components([query], ref_template=_REF + "{name}")
        schema = components[found["$ref"].removeprefix(_REF)]
        for name, value in schema["properties"].items():
            yield {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": _given(value)}


def _operation(operation: Operation, said: Said, schemas: _Schemas, by_token: bool) -> Schema:
    written = inspect.getdoc(operation.handler) or ""
    takes = "Anyone who can connect may." if operation.role == "anyone" else f"Takes the role {operation.role}."
    found: Schema = {
        "operationId": _operation_id(operation),
        "summary": said.summary,
        "description": f"{written}\n\n{takes}".strip(),
        "tags": [_noun(operation.path)],
        "security": _security(operation, by_token),
        "parameters": list(_parameters(operation, said)),
        "responses": dict(_responses(operation, said, schemas)),
    }
    if said.body is not None:
        schema = schemas.of(said.body)
        found["requestBody"] = {
            "required": not said.body_optional,
            "content": {media: {"schema": schema} for media in said.takes},
        }
    return found


def _parameters(operation: Operation, said: Said) -> Iterator[Schema]:
    for name in _PARAMETER.findall(operation.path):
        of_key = NOT_WHOLE if operation.path.startswith(_OF_KEYS) else {}
        schema = {"type": "string", "minLength": 1, **of_key, **(said.path or {}).get(name, {})}
        yield {"name": name, "in": "path", "required": True, "description": _PATH_WORDS[name], "schema": schema}
    if said.query is not None:
        yield from _Schemas.parameters(said.query)
    for header, is_taken in (("If-None-Match", said.shows_one), ("If-Match", said.changes_one)):
        if is_taken:
            described = {"description": _CONDITIONS[header], "schema": {"type": "string"}}
            yield {"name": header, "in": "header", "required": False, **described}


def _responses(operation: Operation, said: Said, schemas: _Schemas) -> Iterator[tuple[str, Schema]]:
    headers = {"ETag": {"required": True, "schema": {"type": "string", "pattern": _TAG}}} if said.shows_one else {}
    answer: Schema = {"description": "Done." if operation.method != "GET" else "As asked."}
    if said.lines:
        kinds = [schemas.of(kind) for kind in said.lines]
        lines = {"type": "string", "description": "Lines of JSON.", "x-lines": {"anyOf": kinds}}
        answer["content"] = {said.media: {"schema": lines}}
    else:
        schema = schemas.of(said.answer) if said.answer is not None else _FREE[said.media == JSON]
        answer["content"] = {said.media: {"schema": schema}}
    if headers:
        answer["headers"] = headers
    yield str(said.status), answer
    if said.shows_one:
        yield "304", {"description": "It is what If-None-Match names.", "headers": headers}
    for problem in _problems(operation, said):
        rule = f" Beyond the schema: {said.rules}." if problem is INVALID and said.rules else ""
        described: Schema = {
            "description": f"{problem.title}.{rule}",
            "content": {"application/problem+json": {"schema": {"$ref": _REF + "Problem"}}},
        }
        if problem is UNAUTHENTICATED:
            described["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        yield str(problem.status), described


def _problems(operation: Operation, said: Said) -> list[Problem]:
    """What it may refuse with, by status."""
    found = {MALFORMED, NOT_PERMITTED, UNAVAILABLE, *said.also}
    changes = operation.method != "GET"
    if operation.role != "anyone":
        found |= {UNAUTHENTICATED, RATE_LIMITED}  # the latter where too many wrong tokens came from
    if "{" in operation.path or (said.query is not None and "tenant" in said.query.__struct_fields__):
        found.add(NOT_FOUND)
    if changes:
        found.add(CONFLICT)
    if said.changes_one:
        found.add(PRECONDITION_FAILED)
    if said.body is not None:
        found |= {BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE}
    if said.body is not None or said.query is not None or "{ref}" in operation.path:
        found.add(INVALID)
    return sorted(found, key=lambda problem: problem.status)


def _security(operation: Operation, by_token: bool) -> list[dict[str, list[str]]]:
    if operation.role == "anyone":
        return []
    tokens: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY]
    return tokens if by_token else [{}, *tokens]


def _operation_id(operation: Operation) -> str:
    """`POST /v1/keys/{ref}/rotate` is `post_keys_ref_rotate`."""
    words = re.findall(r"\w+", _PARAMETER.sub(r"\1", operation.path).removeprefix("/v1"))
    return "_".join([operation.method.lower(), *words])


def _noun(path: str) -> str:
    """Under what it stands on the page."""
    noun = path.removeprefix("/v1").split("/")[1]
    return "gateway" if not path.startswith("/v1") or noun in ("status", "doctor") else noun


def _given(schema: Schema) -> Schema:
    """A parameter is given or not: in a query there is no null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        schema = {**choices[0], **{name: value for name, value in schema.items() if name != "anyOf"}}
    if "enum" in schema:
        schema["enum"] = [choice for choice in schema["enum"] if choice is not None]
        schema["type"] = "string"
    if schema.get("default", ...) is None:
        del schema["default"]
    return schema


def _tell_all(schema: Schema) -> None:
    """Of an answer every member is there, but for those that may be unset; msgspec's schema is one for reading."""
    for name, value in schema.get("properties", {}).items():
        if "default" in value:
            del value["default"]
            schema["required"] = [*schema.get("required", ()), name]


def _tell_times(schema: Schema) -> None:
    for name, value in schema.get("properties", {}).items():
        if _IS_TIME.fullmatch(name):
            for choice in value.get("anyOf", [value]):
                if choice.get("type") == "string" and "pattern" not in choice:
                    choice["format"] = "date-time"


def _reached(schemas: Any, components: dict[str, Schema]) -> set[str]:
    """Names of all that these refer to."""
    found: set[str] = set()
    waiting = [schemas]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix(_REF)
            if name and name not in found:
                found.add(name)
                waiting.append(components[name])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _REF + names[each.removeprefix(_REF)] if key == "$ref" else _renamed(each, names)
            for key, each in value.items()
        }
    return [_renamed(each, names) for each in value] if isinstance(value, list) else value
