"""The scripts in completions/ are those that gatectl would write now, and what they ask gets an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatectl.completion import FILES, script
from tests.gatectl.conftest import Gatectl

COMPLETIONS = Path(__file__).parent.parent.parent / "completions"


@pytest.mark.parametrize("shell", FILES)
def test_scripts_are_fresh(shell: str) -> None:
    stale = "write them anew: python -m gatectl.completion completions"
    assert (COMPLETIONS / FILES[shell]).read_text() == script(shell), stale


def test_no_script_is_left_over() -> None:
    assert {path.name for path in COMPLETIONS.iterdir()} == set(FILES.values())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "gatectl ",
            "status doctor explain service route plan key client quota usage billing alert tenant audit backup restore",
        ),
        ("gatectl se", "service"),
        ("gatectl key ", "create list show set rotate disable enable revoke verify import"),
        ("gatectl keys re", "revoke"),
        ("gatectl billing inv", "invoice"),
        ("gatectl billing invoices ", "list show export"),
        ("gatectl billing invoice export --format ", "pdf html csv json"),
        ("gatectl service list --out", "--output"),
        ("gatectl service list -o ", "table wide json ndjson csv tsv id"),
        ("gatectl usage show --interval ", "hour day"),
    ],
)
def test_names_complete_without_a_daemon(gatectl: Gatectl, line: str, expected: str) -> None:
    words = line.split(" ")
    ended = gatectl(COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), _GATECTL_COMPLETE="complete_bash")
    assert (ended.code, ended.out.split(), ended.err) == (0, expected.split(), "")
