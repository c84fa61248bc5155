"""When certificates expire, and what `status` says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from gatewayd.control.admin.health import certificate_problems, certificates_of
from gatewayd.control.certificates import expires_at
from gatewayd.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cert.pem"


@pytest.mark.parametrize("year", [2027, 2049, 2051, 2999])  # UTCTime, and GeneralizedTime from 2050 on
def test_when_a_certificate_expires(file: Path, year: int) -> None:
    end = datetime(year, 5, 4, 3, 2, 1, tzinfo=UTC)
    issued = trustme.CA().issue_cert("localhost", not_after=end)
    for each in issued.cert_chain_pems:
        each.write_to_path(file, append=True)
    assert expires_at(file) == int(end.timestamp())


@pytest.mark.parametrize("content", ["", "a", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(ValueError, match=r"."):
        expires_at(file)


def test_what_an_operator_is_told(file: Path) -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    issued = trustme.CA().issue_cert("localhost", not_after=now + timedelta(days=10, hours=1))
    issued.cert_chain_pems[0].write_to_path(file)
    certificates = certificates_of(Settings(tls_cert=file, tls_key=file))
    assert certificates[0].expires_at == "2026-12-01T13:00:00Z"
    told = {
        days: [trouble.problem for trouble in certificate_problems(certificates, int(now.timestamp()) + days * 86400)]
        for days in (-10, 0, 11)
    }
    name = f"the certificate {file} (tls_cert)"
    assert told == {
        -10: [],
        0: [f"{name} expires in 10 days, at 2026-12-01T13:00:00Z"],
        11: [f"{name} expired at 2026-12-01T13:00:00Z"],
    }
    file.unlink()
    (trouble,) = certificate_problems(certificates_of(Settings(tls_cert=file, tls_key=file)), 0)
    assert trouble.problem == f"{name} cannot be read: no such file or directory"
