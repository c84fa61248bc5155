"""The house guards its own rules: who may import whom, and what each side is kept free of."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the ground up. A module may import its own floor and those below it; proxy and control stand beside each other.
FLOORS = (
    {
        "gatewayd.errors",
        "gatewayd.keys",
        "gatewayd.records",
        "gatewayd.settings",
        "gatewayd.stamp",
        "gatewayd.conf",
        "gatewayd.told",
        "gatewayd.channel",
        "gatewayd.frames",
    },
    {"gatewayd.policy"},
    {
        "gatewayd.boot",
        "gatewayd.serving",
        "gatewayd.upstream_tls",
        "gatewayd.listener_tls",
        "gatewayd.binding",
        "gatewayd.own_machine",
    },
    {"gatewayd.proxy"},
    {"gatewayd.control"},
    {"gatewayd.supervisor"},
    {"gatewayd.cli", "gatewayd.journal_reader", "gatewayd.preflight", "gatewayd.unit"},
    {"gatewayd.__main__"},
)
BESIDE = {("gatewayd.control", "gatewayd.proxy")}
# What a pure decision has no use for.
WORLD = {"asyncio", "socket", "os", "time", "sqlalchemy", "sqlmodel", "httptools", "uvloop", "uvicorn", "starlette"}


def modules(package: str) -> list[tuple[str, Path]]:
    paths = sorted((ROOT / package).rglob("*.py"))
    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [(name.removesuffix(".__init__"), path) for name, path in zip(dotted, paths, strict=True)]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floor_of(module: str) -> tuple[int, str] | None:
    for number, rooms in enumerate(FLOORS):
        for room in rooms:
            if module == room or module.startswith(room + "."):
                return number, room
    return None


@pytest.mark.parametrize(("module", "path"), modules("gatewayd"), ids=lambda value: str(value).rpartition("/")[2])
def test_imports_point_down(module: str, path: Path) -> None:
    here = floor_of(module)
    if module == "gatewayd":
        assert not any(name.startswith("gatewayd.") for name in imports(path))
        return
    assert here is not None, f"{module} stands on no floor: add it to FLOORS"
    for name in imports(path):
        there = floor_of(name)
        if there is None or there[1] == here[1]:
            continue
        assert there[0] <= here[0], f"{module} imports {name}, which stands above it"
        assert (here[1], there[1]) not in BESIDE, f"{module} imports {name}: they stand beside each other"


def test_policy_knows_nothing_of_the_world() -> None:
    """Nor does what it imports, and what that does."""
    paths = dict(modules("gatewayd"))
    seen: set[str] = set()
    ahead = [module for module in paths if module.startswith("gatewayd.policy")]
    while ahead:
        module = ahead.pop()
        seen.add(module)
        reached = imports(paths[module])
        assert not {name.partition(".")[0] for name in reached} & WORLD, module
        ahead += [name for name in reached if name in paths and name not in seen and name != "gatewayd"]
    assert "gatewayd.conf" in seen


@pytest.mark.parametrize(("module", "path"), modules("gatectl"), ids=lambda value: str(value).rpartition("/")[2])
def test_gatectl_shares_nothing_with_gatewayd_but_the_admin_api(module: str, path: Path) -> None:
    assert not {name for name in imports(path) if name.partition(".")[0] == "gatewayd"}


def test_top_level_holds_what_the_project_says_and_nothing_else() -> None:
    wanted = {"gatectl", "gatewayd", "tests", "completions", "pyproject.toml", "README.md"}
    extra = {"Makefile", "LICENSE", "CHANGELOG.md"}
    there = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    built = {name for name in there if name.endswith(".egg-info") or name in ("build", "dist")}
    assert wanted <= there
    assert there - wanted - extra - built == set()


@pytest.mark.parametrize("word", ["utils", "helpers", "manager"])
def test_no_module_hides_behind_a_name_that_says_nothing(word: str) -> None:
    assert not [path for package in ("gatewayd", "gatectl", "tests") for path in (ROOT / package).rglob(f"*{word}*.py")]
