"""The files of `-f`, as one document, which still knows of each part where it was written.

Of several files the tenants of one slug are one, and their lists are put together: services in one file, plans in
another. What two files say differently is a mistake.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from gatectl.config import spelling
from gatectl.config.mistakes import Mistake, MistakenError
from gatectl.config.reading import LARGEST_BYTES, Source
from gatectl.errors import GatectlError, MisuseError

_SUFFIXES = (".yaml", ".yml", ".json")
_OWN = "x-"  # members of the outermost level that are the file's own, for anchors


class Document:
    """What the files say, as the admin API takes it."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.name = ", ".join(source.name for source in sources)
        self._origins: dict[str, tuple[Source, str]] = {}
        self._mistakes: list[tuple[Source, str, str]] = []
        merged = self._alone(sources[0]) if len(sources) == 1 else self._merged(sources)
        self._raise_mistakes()
        self.data: Any = spelling.from_file(merged)

    def __repr__(self) -> str:
        return f"<Document of {self.name}>"

    @property
    def only_tenant(self) -> str | None:
        """The slug of its tenant, where it is about one."""
        tenants = self.data.get("tenants")
        if not (isinstance(tenants, list) and len(tenants) == 1 and isinstance(tenants[0], dict)):
            return None
        slug = tenants[0].get("slug")
        return slug if isinstance(slug, str) else None

    def mistaken(self, errors: Iterable[Mapping[str, Any]]) -> MistakenError:
        """What the gateway finds wrong with it, where that is in the files."""
        told = [(*self._origin(error["pointer"]), str(error["detail"])) for error in errors]
        return MistakenError(_placed(told), more=len(told) >= 100)

    def _alone(self, source: Source) -> Any:
        self._origins[""] = (source, "")
        return self._checked(source)

    def _checked(self, source: Source) -> Any:
        """Its members but for those of its own. The gateway judges the rest."""
        if not isinstance(source.data, dict):
            self._mistakes.append((source, "", "is no configuration; it begins with 'version: 1' and 'tenants:'"))
            return {}
        return {name: held for name, held in source.data.items() if not name.startswith(_OWN)}

    def _merged(self, sources: Sequence[Source]) -> Any:
        merged: dict[str, Any] = {}
        tenants: list[Any] = []
        by_slug: dict[str, int] = {}
        self._origins[""] = (sources[0], "")
        for source in sources:
            held = self._checked(source)
            told = held.pop("tenants", [])
            self._merge_members(merged, held, "", source, "")
            if not isinstance(told, list):
                self._mistakes.append((source, "/tenants", "tenants must be a list"))
                continue
            for index, tenant in enumerate(told):
                self._merge_tenant(tenants, by_slug, tenant, source, f"/tenants/{index}")
        return {**merged, "tenants": tenants}

    def _merge_tenant(
        self, tenants: list[Any], by_slug: dict[str, int], tenant: Any, source: Source, pointer: str
    ) -> None:
        slug = tenant.get("slug") if isinstance(tenant, dict) else None
        known = by_slug.get(slug) if isinstance(slug, str) else None
        if known is None:
            position = len(tenants)
            self._origins[f"/tenants/{position}"] = (source, pointer)
            tenants.append({} if isinstance(slug, str) else tenant)
            if not isinstance(slug, str):
                return
            known = by_slug[slug] = position
        self._merge_members(tenants[known], tenant, f"/tenants/{known}", source, pointer)

    def _merge_members(self, into: dict[str, Any], held: dict[str, Any], to: str, source: Source, at: str) -> None:
        for name, value in held.items():
            step = f"/{name.replace('~', '~0').replace('/', '~1')}"
            if name not in into:
                into[name] = list(value) if _section(value) else value
                self._origins[to + step] = (source, at + step)
            elif _section(value) and _section(into[name]):
                for index, each in enumerate(value):
                    self._origins[f"{to}{step}/{len(into[name])}"] = (source, f"{at}{step}/{index}")
                    into[name].append(each)
            elif into[name] != value:
                other = self._origins[to + step][0].name
                self._mistakes.append((source, at + step, f"{name} is something else in {other}"))

    def _origin(self, pointer: str) -> tuple[Source, str]:
        steps = pointer.split("/")
        for count in range(len(steps), 0, -1):
            if origin := self._origins.get("/".join(steps[:count])):
                source, at = origin
                return source, "/".join([at, *steps[count:]])
        raise AssertionError("the empty pointer has an origin")

    def _raise_mistakes(self) -> None:
        if self._mistakes:
            raise MistakenError(_placed(self._mistakes))


def _section(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _placed(told: Sequence[tuple[Source, str, str]]) -> list[Mistake]:
    """Each file is gone through once."""
    mistakes = []
    for source in {id(source): source for source, _, _ in told}.values():
        own = [(pointer, detail) for held, pointer, detail in told if held is source]
        places = source.places(pointer for pointer, _ in own)
        mistakes += [Mistake(source.name, places.get(pointer), detail, pointer) for pointer, detail in own]
    return mistakes


def document_of(names: Sequence[str]) -> Document:
    """What is in these files: `-` is standard input, a folder stands for the YAML and JSON files in it."""
    paths = [path for name in names for path in _named(name)]
    if len(set(paths)) < len(paths):
        raise MisuseError("a file is named twice", "name each once")
    sources, mistakes, left = [], [], LARGEST_BYTES
    for path in paths:
        content = _content(path, left)
        left -= len(content)
        try:
            sources.append(Source("stdin" if path == "-" else path, content))
        except MistakenError as error:
            mistakes += error.mistakes
    if mistakes:
        raise MistakenError(mistakes)
    return Document(sources)


def _named(name: str) -> list[str]:
    folder = Path(name)
    if name == "-" or not folder.is_dir():
        return [name]
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith("."))
    except OSError as error:
        raise GatectlError(f"cannot read {name}: {error.strerror}") from None
    if not found:
        raise MisuseError(f"{name} holds no YAML file", "name a file, or a folder with some")
    return [str(path) for path in found]


def _content(name: str, limit: int) -> bytes:
    try:
        with _opened(name) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise GatectlError(f"cannot read {name}: {error.strerror}", "name a YAML file, or - for stdin") from None
    if len(content) > limit:
        raise MisuseError(f"{name} is too long: the gateway takes {LARGEST_BYTES >> 20} MiB in all", "split it")
    return content


def _opened(name: str) -> BinaryIO:
    if name == "-":
        if sys.stdin is None:
            raise MisuseError("standard input is closed", "name a file")
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return open(name, "rb")  # noqa: PTH123 (a str is all)
