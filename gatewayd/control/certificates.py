"""When a certificate expires, read from its file.

`ssl` tells that of certificates it has verified or that are authorities, and of no other; so its DER is walked down to
the two times (RFC 5280 section 4.1). What is not needed is stepped over and not judged.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_END = "-----END CERTIFICATE-----"


def expires_at(path: Path) -> int:
    """Seconds since 1970, of the first certificate in a PEM file. Raises OSError, or ValueError where there is none."""
    first, end, _ = path.read_text("latin-1").partition(_END)
    pem = first[max(0, first.find("-----BEGIN CERTIFICATE-----")) :] + end
    der = ssl.PEM_cert_to_DER_cert(pem.strip())
    try:
        return _not_after(der)
    except IndexError:
        raise ValueError("it is cut short") from None


def _not_after(der: bytes) -> int:
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # TBSCertificate
    tag, _, end = _element(der, at)
    if tag == _VERSION:
        at = end
    for _ in ("serialNumber", "signature", "issuer"):
        _, _, at = _element(der, at)
    tag, at, _ = _element(der, at)
    if tag != _SEQUENCE:
        raise ValueError("it has no validity")
    _, _, at = _element(der, at)  # notBefore
    tag, begin, end = _element(der, at)
    return _seconds(tag, der[begin:end].decode("ascii", "replace"))


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag at a place, and where its content begins and ends (X.690 section 8.1)."""
    tag, length, begin = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[begin : begin + size])
        begin += size
    return tag, begin, begin + length


def _seconds(tag: int, text: str) -> int:
    if tag == _UTC_TIME:  # years of two digits: 50 is 1950
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("its time is not one of RFC 5280")
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())
