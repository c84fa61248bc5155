"""git over smart HTTP: clone, push and fetch, with packs large enough to go in chunks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Door

Git = Callable[..., str]


@pytest.fixture
def run(door: Door, git: str, home: Path) -> Git:
    """Runs git with nobody's settings, and with the key in a header."""
    environment = {
        **os.environ,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        **{f"GIT_{who}_{what}": "tester@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    settings = ["-c", f"http.extraHeader=X-API-Key: {door.key}", "-c", "http.postBuffer=65536"]
    settings += ["-c", "init.defaultBranch=main"]

    def run(*arguments: str, cwd: Path = home) -> str:
        done = subprocess.run(
            [git, *settings, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_clone_push_fetch(door: Door, run: Git, home: Path) -> None:
    bare = door.site.folder / "git" / "project.git"
    run("init", "--bare", str(bare))
    url = f"{door.url}/git/project.git"

    run("clone", url, "first")
    first = home / "first"
    (first / "large").write_bytes(os.urandom(400_000))  # a pack above postBuffer goes in chunks
    run("add", ".", cwd=first)
    run("commit", "--message", "One", cwd=first)
    run("push", "origin", "HEAD:main", cwd=first)
    head = run("rev-parse", "HEAD", cwd=first).strip()
    assert run("--git-dir", str(bare), "rev-parse", "main").strip() == head

    run("clone", "--branch", "main", url, "second")
    assert (home / "second" / "large").read_bytes() == (first / "large").read_bytes()

    (first / "small").write_text("two\n")
    run("add", ".", cwd=first)
    run("commit", "--message", "Two", cwd=first)
    run("push", "origin", "HEAD:main", cwd=first)
    run("pull", "--ff-only", cwd=home / "second")
    assert (home / "second" / "small").read_text() == "two\n"
