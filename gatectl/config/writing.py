"""A configuration as YAML: the same one always gives the same bytes.

PyYAML's emitter writes it, and puts quotes wherever YAML 1.1 or 1.2 would read something else than text (`on`, `010`,
`60:00`), so that any program reads the file as gatectl does.
"""

from __future__ import annotations

from typing import Any

import yaml

from gatectl.config import spelling
from gatectl.config.reading import meaning

_WIDTH = 100
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Writer(_Dumper):  # type: ignore[misc]  # one of two classes
    """Short lists of words on a line, everything else as a block; nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _mapping(writer: Any, value: Any) -> Any:
    return writer.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=not value)


def _list(writer: Any, value: Any) -> Any:
    words = [each if isinstance(each, str) else str(each) for each in value if not isinstance(each, (dict, list))]
    # libyaml would put a URL on a line with others into quotes
    on_a_line = len(words) == len(value) and len(" ".join(words)) < _WIDTH // 2 and not any(":" in w for w in words)
    return writer.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=on_a_line)


def _amount(writer: Any, value: str) -> Any:
    tag = "int" if value.lstrip("-").isdigit() else "float"
    return writer.represent_scalar(f"tag:yaml.org,2002:{tag}", str(value))


def _text(writer: Any, value: str) -> Any:
    # Of a text with line breaks the usual form, in which they are doubled, is beyond reading. And PyYAML knows of
    # quotes that YAML 1.1 needs, in which 0E0 is no number.
    style = '"' if "\n" in value else "'" if not isinstance(meaning(value), str) else None
    return writer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Writer.add_representer(dict, _mapping)
_Writer.add_representer(list, _list)
_Writer.add_representer(spelling.Amount, _amount)
_Writer.add_representer(str, _text)


def yaml_text(document: Any) -> str:
    """Of a document as the admin API has it."""
    return yaml_of(spelling.to_file(document))


def yaml_of(value: Any) -> str:
    """Of whatever is JSON."""
    text: str = yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=_WIDTH)
    return text
