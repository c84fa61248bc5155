"""As tests of the wire: coroutines on uvloop."""

from __future__ import annotations

from tests.wire.conftest import anyio_backend, wire

__all__ = ["anyio_backend", "wire"]
