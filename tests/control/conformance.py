"""Whether an answer of the admin API is one that its document tells of: status, media type, headers, body.

Stricter than the document: a member that no schema names is a lie too, though a client must bear it.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from typing import Any

import httpx
import jsonschema_rs

from gatewayd.control.admin.openapi import encoded

# No operation answers the first: it says that there is none. The second is a fault that a test has made.
_ANYWHERE = {405, 500}


@functools.cache
def published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encoded(by_token=False))
    return found


@functools.cache
def _closed() -> dict[str, Any]:
    """The schemas, and no member beside those they name."""
    schemas: dict[str, Any] = copy.deepcopy(published()["components"]["schemas"])
    for schema in schemas.values():
        schema.setdefault("additionalProperties", False)
    return schemas


@functools.cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Those without a parameter come first, as a router has them."""
    found = []
    for path, methods in sorted(published()["paths"].items(), key=lambda item: "{" in item[0]):
        pattern = path.replace("{request_id}", ".+")
        found.append((re.compile(re.sub(r"\{\w+\}", "[^/]+", pattern)), methods))
    return found


@functools.cache
def validator(schema: str) -> Any:
    """Of a schema in JSON, which may refer to those of the document."""
    components = {"components": {"schemas": _closed()}}
    return jsonschema_rs.validator_for({**json.loads(schema), **components}, validate_formats=True)


def operation_at(method: str, path: str) -> dict[str, Any] | None:
    """What the document says of it."""
    for pattern, methods in _paths():
        if method.lower() in methods and pattern.fullmatch(path):
            operation: dict[str, Any] = methods[method.lower()]
            return operation
    return None


def check_body(schema: dict[str, Any], body: Any, of: str) -> None:
    errors = list(validator(json.dumps(schema)).iter_errors(body))
    assert not errors, f"{of}: {errors[0].message} at {list(errors[0].instance_path)}"


def check_answer(method: str, path: str, response: httpx.Response) -> None:
    """Fails on whatever the document does not tell of."""
    operation = operation_at(method, path)
    if operation is None or response.status_code in _ANYWHERE:
        assert response.status_code in (401, 403, 404, 429, *_ANYWHERE), f"{method} {path} is not in the document"
        return
    of = f"{method} {path} answers {response.status_code}"
    assert str(response.status_code) in operation["responses"], f"{of}, which the document does not tell of"
    told = operation["responses"][str(response.status_code)]
    for name, header in told.get("headers", {}).items():
        assert name in response.headers or not header.get("required"), f"{of} without {name}"
        if name in response.headers:
            check_body(header["schema"], response.headers[name], f"{of} with {name}")
    media = response.headers.get("content-type", "").partition(";")[0]
    if not response.content and not told.get("content"):
        return
    content = told["content"].get(media) or told["content"].get("*/*")
    assert content is not None, f"{of} as {media}"
    if "x-lines" in content["schema"]:
        for line in response.text.splitlines():
            check_body(content["schema"]["x-lines"], json.loads(line), of)
    elif media.endswith("json"):
        check_body(content["schema"], response.json(), of)
