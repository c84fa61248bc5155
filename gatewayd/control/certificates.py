"""When a certificate expires, read from its file."""

from __future__ import annotations

from pathlib import Path


def expires_at(path: Path) -> int:
    """Seconds since 1970, of the first certificate in a PEM file. Raises OSError, or ValueError where there is none.

    `ssl` tells that of certificates it has verified or that are authorities, and of no other.
    """
    from cryptography import x509  # for who asks: 8 MB

    return int(x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp())
