"""`make help` tells of every target."""

from __future__ import annotations

import re
import subprocess

from tests.daemons import ROOT


def test_help_lists_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert targets is not None
    assert re.findall(r"^  make (\S+)", shown, re.MULTILINE) == targets[1].split()
