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


def form_of(call: Call) -> str:
    form = call.shared.output or "yaml"
    if form not in FORMS:
        raise MisuseError(f"a configuration has no form {form!r}", f"take one of {', '.join(FORMS)}")
    return form


def text_of(document: Any, form: str, comment: str) -> str:
    """JSON has no comments."""
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return f"# {' '.join(comment.split())}\n{yaml_text(document)}"


def write(text: str, name: str | None) -> None:
    """To stdout, or to a file that is whole or not there at all."""
    if name in (None, "-"):
        sys.stdout.write(text)
        return
    assert name is not None
    with file_written(name) as file:
        file.write(text.encode())
