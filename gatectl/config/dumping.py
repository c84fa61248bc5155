"""A configuration as it is written out: YAML, unless another form was asked for."""

from __future__ import annotations

import json
import sys
from typing import Any

from gatectl.config.writing import yaml_text
from gatectl.errors import MisuseError
from gatectl.files import file_written
from gatectl.grammar import Call

FORMS = ("yaml", "json")
_HIDDEN = "<hidden from viewers>"  # the gateway's words in place of a value; it takes no document that has them
_INCOMPLETE = "what is hidden from viewers is not in it, so it cannot be applied"


def form_of(call: Call) -> str:
    form = call.shared.output or "yaml"
    if form not in FORMS:
        raise MisuseError(f"a configuration has no form {form!r}", f"take one of {', '.join(FORMS)}")
    return form


def text_of(document: Any, form: str, comment: str) -> str:
    """JSON has no comments."""
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    text = yaml_text(document)
    incomplete = f"# {_INCOMPLETE.capitalize()}.\n" if _HIDDEN in text else ""
    return f"# {' '.join(comment.split())}\n{incomplete}{text}"


def warn_incomplete(call: Call, text: str) -> None:
    """Also of JSON, and where it is written to a file."""
    if _HIDDEN in text:
        call.printer.warn(_INCOMPLETE)


def write(text: str, name: str | None) -> None:
    """To stdout, or to a file that is whole or not there at all."""
    if name in (None, "-"):
        sys.stdout.write(text)
        return
    assert name is not None
    with file_written(name) as file:
        file.write(text.encode())
