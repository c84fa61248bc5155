"""`gatectl api`: any request to the admin API, for what has no verb yet, and for scripts."""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import typer

from gatectl.client import RawAnswer
from gatectl.errors import GatectlError, MisuseError, from_problem
from gatectl.grammar import Call, verb_command

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "null": None}


class _Question(NamedTuple):
    """A request as it will be sent, but for the page."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    content: bytes | None


def api(
    call: Call,
    first: Annotated[str, typer.Argument(metavar="[METHOD]", help="GET, POST, ...  [default: GET, POST with fields]")],
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="Such as /v1/services, with its query.")] = None,
    field: Annotated[
        list[str] | None, typer.Option("--field", "-f", metavar="NAME=TEXT", help="A field of the body, a string.")
    ] = None,
    typed: Annotated[
        list[str] | None,
        typer.Option("--typed", "-F", metavar="NAME=VALUE", help="The same; 5, true, null, @FILE as they mean."),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--input", metavar="FILE", help="The body, as it is; - for standard input.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="LINE", help="With this header, 'Name: value'.")
    ] = None,
    include: Annotated[bool, typer.Option("--include", "-i", help="Status and headers of the answer first.")] = False,
    paginate: Annotated[bool, typer.Option("--paginate", help="All pages of a list, as one.")] = False,
) -> None:
    """Send any request to the admin API, and write the answer as it came.

    Fields make a JSON body; of a GET, and beside --input, they are its query. NAME[] is one of a list, NAME[PART] a
    field within. What is refused is written too; the exit code is that of the verbs.
    """
    if call.printer.asked and call.printer.form not in ("json", "yaml"):
        raise MisuseError("an answer is written as it came", "take -o json, -o yaml, or no -o")
    question = _question(call, first, path, field or [], typed or [], file, header or [])
    if paginate and (question.method != "GET" or include):
        raise MisuseError("--paginate is for a GET, without --include", "leave out one of them")
    if paginate:
        _write(call, _all_pages(call, question))
        return
    answer = _asked(call, question)
    if include:
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{name}: {value}" for name, value in answer.headers)]
        sys.stdout.write("\n".join(lines) + "\n\n")
    if answer.status >= 300 or _arranged(call, answer):
        body = b"".join(answer.parts)
        _write(call, body)
        if answer.status >= 400:
            raise _refusal(call, answer.status, body)
    else:
        _pass_on(answer.parts)


def _question(
    call: Call, first: str, path: str | None, texts: list[str], typed: list[str], file: str | None, headers: list[str]
) -> _Question:
    method, path = (first.upper(), path) if path is not None else ("", first)
    if path.upper() in _METHODS:
        raise MisuseError(f"{path.upper()} needs a path", f"such as: gatectl api {path.upper()} /v1/services")
    if method and method not in _METHODS:
        raise MisuseError(f"{method} is no method", f"take one of {', '.join(_METHODS)}")
    method = method or ("POST" if texts or typed or file else "GET")
    fields = [(*_pair(text, "--field"), False) for text in texts] + [(*_pair(text, "--typed"), True) for text in typed]
    query = [("tenant", call.tenant)] if call.tenant else []
    content: bytes | None = None
    if file is not None:
        content = _content(file)
    elif fields and method not in ("GET", "HEAD"):
        content = json.dumps(_body(fields)).encode()
    if content is None or file is not None:
        query += [(name, text) for name, text, _ in fields]
    given = [_header(line) for line in headers]
    if content is not None and not any(name.lower() == "content-type" for name, _ in given):
        given.append(("Content-Type", "application/json"))
    return _Question(method, path if path.startswith("/") else f"/{path}", query, given, content)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise MisuseError(f"{option}: {text!r} is not a name and a value, such as name=starter")
    return name, value


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not (colon and name.strip() and line.isprintable() and line.isascii()):
        raise MisuseError(f"--header: {line!r} is no header, such as 'If-Match: \"5\"'")
    return name.strip(), value.strip()


def _content(file: str) -> bytes:
    if file == "-":
        return b"" if sys.stdin is None else sys.stdin.buffer.read()
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 (pathlib costs a start-up more)
            return opened.read()
    except OSError as error:
        raise MisuseError(f"cannot read {file}: {error.strerror}") from None


def _body(fields: Iterable[tuple[str, str, bool]]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, text, typed in fields:
        _put(body, name, _value(text) if typed else text)
    return body


def _value(text: str) -> Any:
    if text.startswith("@"):
        return _content(text[1:]).decode("utf-8", "replace")
    if text in _WORDS:
        return _WORDS[text]
    try:
        return json.loads(text) if text[:1] in "-0123456789" else text
    except ValueError:
        return text


def _put(body: dict[str, Any], name: str, value: Any) -> None:
    """`a=1`, `a[]=1` (one more of a list), `a[b]=1` (a field of an object), and so on inwards."""
    wrong = MisuseError(f"{name!r} is no name of a field here", "such as name, targets[] or health[path]")
    match = _NAME.fullmatch(name)
    if match is None:
        raise wrong
    keys = [match[1], *re.findall(r"\[(.*?)\]", match[2])]
    place: Any = body
    for key, inner in zip(keys, [*keys[1:], None], strict=True):
        new = value if inner is None else {} if inner else []
        if isinstance(place, list) and key == "":
            place.append(new)
            place = new
        elif isinstance(place, dict) and key:
            place[key] = new if inner is None else place.get(key, new)
            place = place[key]
        else:
            raise wrong


def _asked(call: Call, question: _Question, after: str | None = None) -> RawAnswer:
    query = question.query if after is None else [*question.query, ("after", after)]
    return call.gateway.raw(question.method, question.path, query, question.headers, question.content)


def _all_pages(call: Call, question: _Question) -> bytes:
    """The first answer with the items of all: a list that goes on says where with `next`."""
    whole: Any = None
    after: str | None = None
    while True:
        answer = _asked(call, question, after)
        body = b"".join(answer.parts)
        page = _json(body)
        if answer.status >= 400:
            _write(call, body)
            raise _refusal(call, answer.status, body)
        if not isinstance(page, dict) or not isinstance(page.get("items"), list):
            raise GatectlError(f"{question.path} is no list", "leave out --paginate")
        if whole is None:
            whole = page
        else:
            whole["items"] += page["items"]
        after = page.get("next")
        if after is None:
            whole["next"] = None
            return json.dumps(whole, ensure_ascii=False).encode() + b"\n"


def _arranged(call: Call, answer: RawAnswer) -> bool:
    """Whether it is to be read by people, or in a form that was asked for, and can be: it is JSON, and has an end."""
    kind = {name.lower(): value for name, value in answer.headers}.get("content-type", "")
    return (call.printer.terminal or call.printer.asked) and kind.partition(";")[0].strip().endswith("json")


def _write(call: Call, body: bytes) -> None:
    found = _json(body)
    if found is None or not (call.printer.terminal or call.printer.asked):
        _pass_on([body])
    else:
        call.printer.document(found)


def _pass_on(parts: Iterable[bytes]) -> None:
    """As it came, and when it came."""
    if sys.stdout.isatty():
        for part in parts:
            sys.stdout.write(part.decode("utf-8", "replace"))
            sys.stdout.flush()
        return
    sys.stdout.flush()  # the head, where that was asked for: bytes go past it
    for part in parts:
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _refusal(call: Call, status: int, body: bytes) -> GatectlError:
    error = from_problem(status, _json(body))
    error.hint = call.gateway.transport.refused.get(error.code, error.hint)
    return error


command = verb_command(
    "api",
    api,
    [
        "gatectl api /v1/services --paginate",
        "gatectl api POST /v1/plans -f name=starter -F 'rates[]=60/min'",
        "gatectl api PATCH /v1/keys/ci -F 'labels[team]=a' -i",
    ],
)
