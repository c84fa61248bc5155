"""Long work in threads: the garbage collector waits for all of it, whatever it waits for by what name."""

from __future__ import annotations

import gc
import sys
from contextlib import ExitStack

from gatewayd.control.collector import without_collections
from gatewayd.control.short_turns import short_turns


def test_the_collector_waits_until_the_last_has_ended() -> None:
    before_s = sys.getswitchinterval()
    with without_collections():
        with short_turns():
            assert not gc.isenabled()
            assert sys.getswitchinterval() < before_s
        assert sys.getswitchinterval() == before_s
        assert not gc.isenabled()  # the other goes on
    assert gc.isenabled()


def test_who_began_first_may_end_first() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(short_turns())
    second.enter_context(without_collections())
    first.close()
    assert not gc.isenabled()
    second.close()
    assert gc.isenabled()
