"""Start-up is what a terminal waits for: what is imported, and what it costs against `python -c pass`.

CPU time of processes, not the clock's, and the best of several runs: both are robust where others use the machine. The
runs share a folder of compiled modules, as an installation has, and skip `site` on both sides, whose cost differs
between an editable installation and a real one and would flatter us.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gatectl as package
from gatectl import COMPLETE_VARIABLE
from gatectl.places import default_socket
from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon

ROOT = Path(__file__).parent.parent.parent


def imported(gatectl: Gatectl, *arguments: str) -> set[str]:
    script = (
        "import os, sys, gatectl.__main__ as m\n"
        "os._exit = sys.exit\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=gatectl.environment, capture_output=True, text=True)
    return set(done.stderr.split())


@pytest.mark.usefixtures("daemon")
def test_nothing_is_imported_that_is_not_used(gatectl: Gatectl) -> None:
    loaded = imported(gatectl, "service", "list")
    assert "gatectl.commands.service" in loaded
    unused = {
        "gatewayd", "rich", "httpx", "http.client", "msgspec", "pydantic", "asyncio", "gatectl.terminal", "yaml",
        "gatectl.plots", "gatectl.commands.key", "gatectl.completion",
    }  # fmt: skip
    assert not loaded & unused


def test_the_version_needs_nothing(gatectl: Gatectl) -> None:
    loaded = imported(gatectl, "--version")
    assert not loaded & {"typer", "httptools", "json", "gatectl.app"}
    assert gatectl("--version") == (0, f"gatectl {package.__version__}\n", "")
    assert gatectl("--version", "-t", "x").out == f"gatectl {package.__version__}\n"


def test_the_version_is_that_of_the_distribution() -> None:
    assert package.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize(
    "environment",
    [{}, {"XDG_RUNTIME_DIR": "/run/user/7"}, {"STATE_DIRECTORY": "/s/a:/s/b"}, {"XDG_STATE_HOME": "/state"}],
)
@pytest.mark.parametrize("uid", [0, 1000])
def test_the_socket_is_where_the_daemon_puts_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], uid: int
) -> None:
    from gatewayd.settings import default_admin_socket

    monkeypatch.setattr(os, "geteuid", lambda: uid)
    for name in ("XDG_RUNTIME_DIR", "STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_socket() == str(default_admin_socket())


def cpu_seconds(argv: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


COMPLETE = {COMPLETE_VARIABLE: "zsh"}


@pytest.mark.parametrize(
    ("arguments", "more", "bar"),
    [
        (["--version"], {}, 4),
        (["serv"], COMPLETE, 4),
        (["service", "add", "orders", "--no-"], COMPLETE, 4),
        (["service", "show", ""], COMPLETE, 4),
        (["service", "list"], {}, 12),
    ],
)
@pytest.mark.usefixtures("daemon")
def test_start_up_cost(
    gatectl: Gatectl, tmp_path: Path, arguments: list[str], more: dict[str, str], bar: float
) -> None:
    environment = gatectl.environment | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]),
        "PYTHONPYCACHEPREFIX": str(tmp_path),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    nothing = [sys.executable, "-S", "-c", "pass"]
    command = [sys.executable, "-S", "-m", "gatectl", *arguments]
    cpu_seconds(command, environment | more)  # compiles what the others find compiled
    ratios = []
    for _ in range(5):
        cost = min(cpu_seconds(command, environment | more) for _ in range(5))
        ratios.append(cost / min(cpu_seconds(nothing, environment) for _ in range(5)))
        if ratios[-1] <= bar:
            return
    pytest.fail(f"gatectl {' '.join(arguments)} costs {min(ratios):.1f} times `python -c pass`, more than {bar}")


@pytest.mark.usefixtures("daemon")
def test_nothing_that_has_to_be_done_at_the_end_is_left_out(gatectl: Gatectl) -> None:
    """It exits without the interpreter's own end, unless something waits for that."""
    before = "import atexit, sys, threading, gatectl.__main__ as m; sys.argv = ['gatectl', 'service', 'list', '-q'];"
    for waits, says in (
        ("atexit.register(print, 'bye')", "bye"),
        ("threading.Thread(target=lambda: (threading.main_thread().join(), print('bye'))).start()", "bye"),
        ("sys.setprofile(lambda *_: None)", ""),
        ("", ""),
    ):
        script = f"{before} {waits}\nm.main()"
        done = subprocess.run([sys.executable, "-c", script], env=gatectl.environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["svc_orders", "svc_products", *filter(None, [says])]


def test_daemon_fixture_is_what_is_asked(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    gatectl("service", "list")
    assert daemon.requests == [("GET", "/v1/services", {"limit": "100"}, None)]
