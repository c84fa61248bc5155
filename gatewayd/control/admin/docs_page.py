"""The document of the admin API, for programs and, as a page to try it out on, for people.

The page is Swagger UI, out of files that lie beside this module: it works where there is no other network than the one
to the gateway, and its policy lets the browser load nothing from elsewhere. There are no secrets in either, so whoever
can connect may have them; what an operation is tried with decides what it may do.
"""

from __future__ import annotations

import functools
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.problems import not_found
from gatewayd.errors import NOT_FOUND

_FOLDER = Path(__file__).parent / "docs"
FILES = {
    "favicon-32x32.png": "image/png",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
# `data:`: icons within the style sheet.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


@documented("Show this document")
async def document(request: Request) -> Response:
    """OpenAPI 3.1, with the JSON Schema of every body and answer."""
    # Imported here: nothing of it is needed until somebody asks, and it takes a tenth of a second to make.
    from gatewayd.control.admin import openapi

    by_token = getattr(request.state, "peer", None) is None
    body = await run_in_threadpool(functools.partial(openapi.encoded, by_token=by_token))
    return Response(body, media_type="application/json", headers={"cache-control": "no-cache"})


@documented("Show a page to read and try this API on", media="text/html")
def page(_: Request) -> Response:
    return Response(_read("index.html"), media_type="text/html", headers=_HEADERS)


@documented("Give a file of that page", media="*/*", path={"file": {"enum": sorted(FILES)}}, also=(NOT_FOUND,))
def file(request: Request) -> Response:
    name = request.path_params["file"]
    if name not in FILES:
        raise not_found("file", name, FILES)
    return Response(_read(name), media_type=FILES[name], headers=_HEADERS)


@functools.cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
