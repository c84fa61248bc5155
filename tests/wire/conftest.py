"""Tests of the wire are coroutines on uvloop, as in production."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.wire.harness import Wire


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def wire(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Wire]:
    async with Wire(tmp_path) as opened:
        yield opened
