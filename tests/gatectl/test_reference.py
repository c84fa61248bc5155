"""What is written from the grammar is what would be written now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.files import ROOT, wanted_files

FILES = dict(wanted_files())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_fresh(path: Path) -> None:
    assert path.read_text() == FILES[path], "write it anew: make completions"


def test_nothing_is_left_over() -> None:
    for folder in {path.parent for path in FILES} - {ROOT / "gatectl" / "completion", ROOT, ROOT / "gatectl"}:
        assert set(folder.iterdir()) == {path for path in FILES if path.parent == folder}
