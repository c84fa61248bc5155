"""What is refused of a request head before it is read: by llhttp, or because what there is cannot become one."""

from __future__ import annotations

import re

import httptools

from gatewayd.errors import BAD_REQUEST, HEAD_TOO_LARGE, NOT_IMPLEMENTED, TARGET_TOO_LONG, Refusal
from gatewayd.settings import Settings

NO_HEAD = Refusal(BAD_REQUEST, "this is not an HTTP/1.1 request head")
BESIDE_TARGET_BYTES = 32  # method, version and spaces of a request line, and some more: the limit is the target's
_NO_CALLBACKS = object()  # llhttp judges; what there is to know is read from the bytes (see `head`)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^\r\n]+ HTTP/1\.[01]\r\n")
_AS_ASCII = bytes(byte if byte < 0x80 else ord("x") for byte in range(256))
_TOKEN_START = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]")


def new_parser() -> httptools.HttpRequestParser:
    """One that stands at the start of a message. After an error or a body, the old one will not go on."""
    return httptools.HttpRequestParser(_NO_CALLBACKS)


def judge_again(head: bytes, error: Exception) -> Refusal | None:
    """What llhttp stopped at may still be served: an upgrade, which is ours to judge, or a target in obs-text."""
    if isinstance(error, httptools.HttpParserUpgrade):
        return None
    if isinstance(error, httptools.HttpParserInvalidMethodError) and _REQUEST_LINE.match(head) is not None:
        return Refusal(NOT_IMPLEMENTED, "this request method is not known")
    line_end = head.find(b"\r\n")
    line = head[:line_end].translate(_AS_ASCII)
    if isinstance(error, httptools.HttpParserInvalidURLError) and line != head[:line_end]:
        # llhttp takes no byte above 0x7F in a target, though UTF-8 stands there often; it may judge the rest.
        try:
            new_parser().feed_data(line + head[line_end:])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as second:
            return judge_again(line + head[line_end:], second)
        return None
    return Refusal(BAD_REQUEST, f"the request head is malformed ({error})")


def refusal_of_start(data: bytes, judged: int, settings: Settings) -> Refusal | None:
    """Why these bytes cannot become a head, however they go on. The first `judged` of them have been looked at."""
    if _BARE_LF.search(data, judged) or (_TOKEN_START.match(data) is None and data != b"\r"):
        return NO_HEAD
    if len(data) > settings.target_limit_bytes + BESIDE_TARGET_BYTES and b"\r\n" not in data:
        return Refusal(TARGET_TOO_LONG, f"the request target is longer than {settings.target_limit_bytes} bytes")
    if len(data) > settings.head_limit_bytes:
        return refusal_of_length(settings)
    return None


def refusal_of_length(settings: Settings) -> Refusal:
    return Refusal(HEAD_TOO_LARGE, f"the request head is longer than {settings.head_limit_bytes} bytes")


def without_empty_lines(data: bytes) -> bytes:
    """RFC 9112 section 2.2: an empty line before a request is to be ignored."""
    start = 0
    while data.startswith(b"\r\n", start):
        start += 2
    return data[start:]
