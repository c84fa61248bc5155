"""What an operator mistypes: one line, with the way out, and never what is in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.listener.conftest import Pki


def gatewayd(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "gatewayd", "--listen", "127.0.0.1:0", "--state-dir", str(folder / "state")]
    argv += ["--admin-socket", str(folder / "admin.sock"), *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def refused(run: subprocess.CompletedProcess[str], *said: str) -> None:
    assert run.returncode == 1, run
    (line,) = run.stderr.splitlines()
    assert line.startswith("gatewayd: ")
    for text in said:
        assert text in line


@pytest.mark.parametrize("verb", [[], ["check"]])
def test_files_are_checked_before_anything_starts(verb: list[str], pki: Pki, tmp_path: Path) -> None:
    cert, key = ["--tls-cert", str(pki.cert)], ["--tls-key", str(pki.key)]
    refused(gatewayd(tmp_path, *cert, *verb), "tls_cert is set and tls_key is not")
    refused(gatewayd(tmp_path, *key, *verb), "tls_key is set and tls_cert is not")
    refused(gatewayd(tmp_path, *cert, "--tls-key", "/none", *verb), "tls_key /none cannot be read: no such file")
    refused(gatewayd(tmp_path, *cert, "--tls-key", str(pki.cert), *verb), "holds no private key in PEM form")
    refused(gatewayd(tmp_path, "--tls-cert", str(pki.key), *key, *verb), "holds no certificate in PEM form")
    refused(gatewayd(tmp_path, "--tls-cert", str(tmp_path), *key, *verb), "cannot be read: is a directory")
    trustme.CA().issue_cert("a").private_key_pem.write_to_path(str(pki.key))
    refused(gatewayd(tmp_path, *cert, *key, *verb), f"tls_key {pki.key} is not the key of tls_cert {pki.cert}")
    assert not (tmp_path / "state").exists()


def test_client_certificates_take_an_authority(pki: Pki, tmp_path: Path) -> None:
    authority = {"GATEWAYD_TLS_CLIENT_CA": str(pki.client_ca)}
    refused(gatewayd(tmp_path, "check", **authority), "tls_client_ca is set and tls_cert is not")
    refused(gatewayd(tmp_path, *pki.options, "check", **authority), "tls_client_auth")
    refused(gatewayd(tmp_path, *pki.options, "check", GATEWAYD_TLS_CLIENT_AUTH="required"), "tls_client_ca")
    wanted = {"GATEWAYD_TLS_CLIENT_AUTH": "required"}
    empty = {"GATEWAYD_TLS_CLIENT_CA": "/dev/null"}
    refused(gatewayd(tmp_path, *pki.options, "check", **wanted, **empty), "/dev/null holds no certificate")
    assert gatewayd(tmp_path, *pki.options, "check", **wanted, **authority).returncode == 0


def test_a_key_that_was_pasted_is_not_repeated(pki: Pki, tmp_path: Path) -> None:
    run = gatewayd(tmp_path, "--tls-cert", str(pki.cert), "check", GATEWAYD_TLS_KEY=pki.key.read_text())
    refused(run, "setting tls_key: must be the path of a file, not what is in the file")
    assert "PRIVATE" not in run.stderr


@pytest.mark.parametrize("networks", ["10.0.0.0/99", "proxies.example", "10.0.0.1/8", "10.0.0.1;10.0.0.2"])
def test_networks_that_are_none(networks: str, tmp_path: Path) -> None:
    refused(gatewayd(tmp_path, "--trusted-proxies", networks, "check"), "setting trusted_proxies", networks)


def test_networks_from_everywhere(tmp_path: Path) -> None:
    expected = "trusted_proxies = 10.0.0.0/8, ::1/128"
    file = tmp_path / "gatewayd.toml"
    file.write_text('trusted_proxies = ["10.0.0.0/8", "::1"]\nproxy_protocol = true')
    shown = gatewayd(tmp_path, "--config", str(file), "check").stdout
    assert expected in shown
    assert "proxy_protocol = true" in shown
    assert "tls_cert = none" in shown
    assert expected in gatewayd(tmp_path, "check", GATEWAYD_TRUSTED_PROXIES="10.0.0.0/8,::1").stdout
    assert expected in gatewayd(tmp_path, "--trusted-proxies", "10.0.0.0/8, ::1", "check").stdout


def test_names_that_are_near_a_setting(tmp_path: Path) -> None:
    file = tmp_path / "gatewayd.toml"
    file.write_text("drain_timeout = 3")
    run = gatewayd(tmp_path, "--config", str(file), "check")
    refused(run, "setting drain_timeout is not known; did you mean drain_timeout_s?")
    run = gatewayd(tmp_path, "check", GATEWAYD_WORKER="3", GATEWAYD_XYZZY="1", gatewayd_workers="1")
    assert run.returncode == 0
    assert sorted(run.stderr.splitlines()) == [
        "gatewayd: warning: GATEWAYD_WORKER in the environment is no setting; did you mean GATEWAYD_WORKERS?",
        "gatewayd: warning: GATEWAYD_XYZZY in the environment is no setting",
    ]


@pytest.mark.parametrize("count", ["x", "-1", "", "99999999999999999999", "3"])
def test_listen_fds_that_makes_no_sense(count: str, tmp_path: Path) -> None:
    program = (
        "import os, sys; os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': sys.argv.pop()};"
        "from gatewayd.cli import main; main()"
    )
    argv = [sys.executable, "-c", program, "--state-dir", str(tmp_path), "--admin-socket", str(tmp_path / "s"), count]
    refused(subprocess.run(argv, capture_output=True, text=True, timeout=60), "LISTEN_FDS is", "unset it")
