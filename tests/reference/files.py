"""Every file that is written from the grammar, with the text that it should have now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.reference import man, markdown, table
from tests.reference.walk import walked

ROOT = Path(__file__).resolve().parent.parent.parent


def wanted_files() -> Iterator[tuple[Path, str]]:
    """Path and text."""
    package = ROOT / "gatectl" / "completion"
    yield package / "table.py", table.written(walked())
    # Where packagers look for them, and `hatch` for what a wheel puts into share/; the package has its own to print.
    for script in sorted((package / "scripts").iterdir()):
        yield ROOT / "completions" / script.name, script.read_text()
    for name, page in man.pages(walked()):
        yield ROOT / "gatectl" / "man" / f"man{name[-1]}" / name, page
    yield ROOT / "gatectl" / "REFERENCE.md", markdown.reference(walked())
    yield ROOT / "README.md", markdown.readme((ROOT / "README.md").read_text(), walked())
