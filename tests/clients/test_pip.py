"""pip, from a package index behind the gateway."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.clients.conftest import Door

METADATA = "Metadata-Version: 2.1\nName: gatewayd-test-parcel\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
NAME = "gatewayd_test_parcel"


def write_wheel(folder: Path) -> None:
    """The smallest wheel that pip takes (PEP 427), written by hand."""
    info = f"{NAME}-1.0.dist-info"
    files = {f"{NAME}.py": "WORD = 'delivered'\n", f"{info}/METADATA": METADATA, f"{info}/WHEEL": WHEEL}
    record = [f"{name},sha256={_digest(text)},{len(text)}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / f"{NAME}-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def test_install(door: Door, home: Path) -> None:
    """From the open service: pip knows no header for a key."""
    write_wheel(door.site.folder / "index" / "gatewayd-test-parcel")
    argv = [sys.executable, "-m", "pip", "--isolated", "install", "--disable-pip-version-check", "--no-deps"]
    argv += ["--no-cache-dir", "--index-url", f"{door.open_url}/index/", "--target", str(home / "installed")]
    done = subprocess.run([*argv, "gatewayd-test-parcel"], capture_output=True, text=True, timeout=100, cwd=home)
    assert done.returncode == 0, done.stderr
    assert (home / "installed" / f"{NAME}.py").read_text() == "WORD = 'delivered'\n"
