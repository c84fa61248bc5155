"""Letters for a PDF, which has to carry its own.

FiraGO comes with `gatewayd[pdf]` (as the package pymupdf-fonts, SIL OFL) and has Latin, Greek, Cyrillic, Arabic,
Hebrew, Devanagari, Thai and Georgian. For what it lacks, above all Chinese, Japanese and Korean (15 MB a font, too much
to bring along), the fonts of the system are looked through, where a desktop or `apt install fonts-noto-cjk` puts them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fontTools.ttLib import TTCollection, TTFont, TTLibError  # type: ignore[import-untyped]
from pymupdf_fonts import myfont  # type: ignore[import-untyped]

_REGULAR, _BOLD = "figo", "figbo"
# Families that cover much, best first: one of them is better than a patchwork of many.
_PREFERRED = ("notosanscjk", "droidsansfallback", "wqy", "unifont", "notosans")


class Face(NamedTuple):
    """A font in a file, which may hold several."""

    path: Path
    number: int = 0


def own(folder: Path) -> tuple[Face, Face]:
    """FiraGO, regular and bold, as files in `folder`: the library takes fonts from files alone."""
    faces = []
    for code in (_REGULAR, _BOLD):
        path = folder / f"{code}.ttf"
        path.write_bytes(myfont(code))
        faces.append(Face(path))
    return faces[0], faces[1]


def fallbacks(characters: set[int], faces: Sequence[Face]) -> tuple[list[Face], set[int]]:
    """Which fonts of the system have those `characters` that `faces` lack, and what nobody has."""
    missing = characters - set[int]().union(*(_characters(face) for face in faces))
    chosen: list[Face] = []
    if missing:
        for face in _system_faces():
            if found := missing & _characters(face):
                chosen.append(face)
                missing -= found
            if not missing:
                break
    return chosen, missing


def _characters(face: Face) -> set[int]:
    try:
        with face.path.open("rb") as file, TTFont(file, fontNumber=face.number, lazy=True) as font:
            return set(font.getBestCmap() or ())
    except (OSError, TTLibError, ValueError, KeyError):
        return set()  # it is no font, or a broken one


def _system_faces() -> Iterator[Face]:
    files = [path for folder in _folders() if folder.is_dir() for path in folder.rglob("*.*")]
    for path in sorted(files, key=_place):
        if path.suffix.lower() == ".ttc":
            yield from (Face(path, number) for number in range(_faces_in(path)))
        elif path.suffix.lower() in (".ttf", ".otf"):
            yield Face(path)


def _faces_in(path: Path) -> int:
    try:
        with path.open("rb") as file, TTCollection(file, lazy=True) as collection:
            return len(collection.fonts)
    except (OSError, TTLibError, ValueError):
        return 0


def _place(path: Path) -> tuple[int, bool, str]:
    name = path.name.lower().replace("-", "").replace("_", "")
    family = next((place for place, family in enumerate(_PREFERRED) if name.startswith(family)), len(_PREFERRED))
    return family, "regular" not in name, str(path)


def _folders() -> list[Path]:
    """Where fontconfig looks."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [home / "fonts", Path.home() / ".fonts", *(Path(each) / "fonts" for each in shared.split(":") if each)]
