"""`gatectl explain`: what would become of a request, and what became of one. Exit 8 when it is refused."""

import re
from typing import Annotated, Any

import typer

from gatectl.client import path_of
from gatectl.errors import REFUSED, GatectlError, MisuseError, UnreachableError
from gatectl.grammar import Call, argument, named_as_typed, verb_command
from gatectl.keys.secrets import from_stdin
from gatectl.output import Column
from gatectl.times import parse_size

COLUMNS = (
    Column("step"),
    Column("outcome", "status"),
    Column("detail"),
)
FORWARD_COLUMNS = (
    Column("url"),
    Column("headers_set"),
    Column("headers_removed"),
    Column("connect_timeout_s", "seconds"),
    Column("first_byte_timeout_s", "seconds"),
    Column("idle_timeout_s", "seconds"),
    Column("timeout_s", "seconds"),
)
_WHOLE_KEY = re.compile(r"gw_[a-z0-9]{8}_\w", re.ASCII)
_FROM_FILE = "gatectl explain --secret-stdin GET /a < FILE"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_URL = re.compile(r"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)


def explain(
    call: Call,
    first: Annotated[
        str, typer.Argument(metavar="METHOD|REQUEST_ID", help="GET, POST, ...; or the X-Request-Id of an answer.")
    ],
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="With its query; or a whole URL, for its host.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="Of this key, by its prefix gw_..., id or name; never the key."),
    ] = None,
    secret: Annotated[bool, typer.Option("--secret-stdin", help="Of the key that standard input holds.")] = False,
    host: Annotated[str | None, typer.Option("--host", metavar="HOST", help="To this host.")] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="LINE", help="With this header, 'Name: value'.")
    ] = None,
    address: Annotated[str | None, typer.Option("--address", metavar="IP", help="From this address.")] = None,
    body: Annotated[str | None, typer.Option("--body", metavar="SIZE", help="With a body of 512KiB, 10MiB.")] = None,
) -> None:
    """Explain what would become of a request, or what became of one.

    Each step in order, the arithmetic of each limit, and what would let it pass. Asking spends nothing. Of requests
    that have been, the gateway remembers the refused and some of the others. Exits with 8 when it is refused.
    """
    given = (key, secret, host, header, address, body)
    first = first.upper() if first.upper() in _METHODS else first  # as in `api get` and `route test get`
    if path is None and first in _METHODS:
        raise MisuseError(f"{first} needs a path", f"such as: gatectl explain {first} /orders/42")
    if path is None and not first.startswith("/"):
        if any(given):
            raise MisuseError("a request that has been is explained by its id alone", "or give METHOD and PATH")
        told = _asked(call, lambda: call.gateway.get(path_of("explain", first)))
    else:
        method, path = (first, path) if path is not None else ("GET", first)
        question = _question(method, path, key, secret, host, header, address, body)
        with named_as_typed({"headers": "--header", "address": "--address", "host": "--host"}):
            told = _asked(call, lambda: call.gateway.post("/v1/explain", question, call.in_tenant))
    _show(call, told)
    if told["outcome"] == "refused":
        raise typer.Exit(REFUSED)


def _question(
    method: str,
    path: str,
    key: str | None,
    secret: bool,
    host: str | None,
    headers: list[str] | None,
    address: str | None,
    body: str | None,
) -> dict[str, Any]:
    if key and secret:
        raise MisuseError("--key and --secret-stdin name a key each", "give one of them")
    if key and _WHOLE_KEY.match(key):
        key = "_".join(key.split("_")[:2])  # a whole key in its place goes no further
    for line in headers or ():
        if _WHOLE_KEY.search(line):
            raise MisuseError("a header holds a key, which would stay in the shell's history", "take --key gw_...")
    if url := _URL.fullmatch(path):
        host, path = host or url[1], url[2] if url[2].startswith("/") else f"/{url[2]}"
    if not path.startswith("/") and path != "*":
        raise MisuseError(f"the path {path!r} does not begin with /", f"such as: gatectl explain {method} /{path}")
    with argument("--body"):
        size = None if body is None else parse_size(body)
    question = {
        "method": method, "path": path, "key": key, "secret": from_stdin(_FROM_FILE) if secret else None, "host": host,
        "headers": headers or None, "address": address, "body_bytes": size,
    }  # fmt: skip
    return {field: value for field, value in question.items() if value is not None}


def _asked(call: Call, ask: Any) -> Any:
    """The answer. Without a worker there is nobody who could tell: to a script, the gateway is not there."""
    try:
        return ask()
    except GatectlError as error:
        if error.code == "unavailable":
            raise UnreachableError(error.what, error.hint) from None
        raise


def _show(call: Call, told: dict[str, Any]) -> None:
    printer = call.printer
    if printer.whole(told) or (printer.quiet and not printer.asked):
        return
    printer.note(f"{_title(told)}\n")
    between = {"table": "\n", "wide": "\n", "tsv": "; ", "csv": "; "}.get(printer.form)
    steps = told["steps"] if between is None else [_with_limits(step, between) for step in told["steps"]]
    printer.many([steps], COLUMNS)
    if told["forward"] and printer.terminal and not printer.asked and not call.shared.columns:
        printer.text("")
        printer.one(_spaced(told["forward"]), FORWARD_COLUMNS)
    if told["would_pass"]:
        printer.note(f"\nWould pass: {told['would_pass']}")


def _with_limits(step: dict[str, Any], between: str) -> dict[str, Any]:
    lines = [step["detail"], *(limit["detail"] for limit in step["limits"])]
    return {**step, "detail": between.join(lines)}


def _spaced(forward: dict[str, Any]) -> dict[str, Any]:
    """Names of headers as words, between which a terminal can break a line."""
    return {field: ", ".join(value) or None if isinstance(value, list) else value for field, value in forward.items()}


def _title(told: dict[str, Any]) -> str:
    request = told["request"]
    what = f"{request['method']} {request['path']}".strip() or "What came"
    by = f" with {request['key']}" if request["key"] else ""
    answer = " ".join(str(part) for part in (told["status"], told["code"]) if part)
    has_been = request["id"] is not None
    if told["outcome"] == "refused":
        came = "was" if has_been else "would be"
    else:
        came = "was admitted and got" if has_been else "would be admitted"
        return f"{what}{by} {came} {answer}".rstrip() + (f" at {request['at']}" if has_been else "")
    return f"{what}{by} {came} refused: {answer}" + (f", at {request['at']}" if has_been else "")


command = verb_command(
    "explain",
    explain,
    ["gatectl explain --key gw_ab12cd34 GET /orders/42", "gatectl explain ff42db4e2b8f4688"],
)
