"""The man pages: whole, and clean in the eyes of who reads them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gatectl.app import NOUNS
from gatewayd.settings import Settings
from tests.reference.files import ROOT
from tests.reference.walk import walked

MAN = ROOT / "gatectl" / "man"
PAGES = sorted(MAN.rglob("*.?"))
MACROS = {"TH", "SH", "SS", "TP", "B", "PP", "br", "nf", "fi", "nh", "ad"}


def page(name: str) -> str:
    """A page's text without what only roff reads in it."""
    text = next(MAN.rglob(name)).read_text()
    letters = {"\\-": "-", "\\(aq": "'", "\\(dq": '"', "\\(ti": "~", "\\(ga": "`", "\\(ha": "^", "\\&": "", "\\e": "\\"}
    for written, meant in letters.items():
        text = text.replace(written, meant)
    return text


def test_each_noun_has_one_with_all_its_verbs_and_options() -> None:
    assert {path.name for path in PAGES} == {
        "gatectl.1",
        "gatewayd.8",
        *(f"gatectl-{noun.name}.1" for noun in NOUNS),
    }
    for noun in walked().verbs:
        text = page(f"gatectl-{noun.name}.1")
        for verb in noun.all():
            assert verb.verbs or f".B {' '.join(verb.path)}\n" in text
            assert all(name in text for option in verb.options for name in option.names)
            assert all(example in text for example in verb.examples)


def test_the_overview_and_the_daemons() -> None:
    overview = page("gatectl.1")
    assert all(f"gatectl-{noun.name}(1)" in overview for noun in NOUNS)
    assert "GATECTL_SOCKET" in overview
    assert ".B 130\ninterrupted\n" in overview
    daemon = page("gatewayd.8")
    assert all(f".B {name}\n" in daemon for name in Settings.model_fields)
    assert "--admin-socket" in daemon


def test_every_variable_that_gatectl_reads_is_in_the_overview() -> None:
    code = "".join(path.read_text() for path in (ROOT / "gatectl").rglob("*.py"))
    named = set(re.findall(r'environ(?:ment)?(?:\.get\(|\[)"(GATECTL_[A-Z_]+)"', code))
    assert named
    assert not {name for name in named if name not in page("gatectl.1")}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_nothing_is_taken_for_a_macro_that_is_none(path: Path) -> None:
    for line in path.read_text().splitlines():
        if line.startswith((".", "'")):
            assert line.startswith('.\\"') or line[1:].partition(" ")[0] in MACROS, line
        assert not re.search(r"\\(?![-e&]|\((?:aq|dq|ga|ha|ti)|\")", line), line
        assert line.isprintable()


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_groff_warns_of_nothing(path: Path) -> None:
    assert shutil.which("man"), "this test reads man pages: apt install man-db groff"
    shown = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(path)],
        env=os.environ | {"LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (shown.stderr, shown.stdout[:2]) == ("", "x ")
