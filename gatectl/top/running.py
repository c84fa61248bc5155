"""The loop of `gatectl top`: news and keys in, frames out."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gatectl.client import Gateway
from gatectl.top import screen as drawing
from gatectl.top.following import Feed
from gatectl.top.state import State, keys_of, pressed, shown
from gatectl.top.terminal import EndedError, Screen

_LOOK_AGAIN_S = 1.0  # for how long the gateway has been away


def run(gateway: Gateway, query: Mapping[str, Any], state: State, wait_s: float) -> None:
    """Until `q`, or until the gateway has been away for longer than `wait_s`: then its error is raised."""
    feed = Feed(gateway, query)
    try:
        with Screen() as screen:
            _loop(screen, feed, state, wait_s)
    except EndedError as ended:
        signal.signal(ended.number, signal.SIG_DFL)  # as if we had not caught it
        os.kill(os.getpid(), ended.number)
    finally:
        feed.close()


def _loop(screen: Screen, feed: Feed, state: State, wait_s: float) -> None:
    utf8 = "utf" in (sys.stdout.encoding or "").lower()
    colours = "NO_COLOR" not in os.environ
    before: tuple[State, tuple[int, int]] | None = None
    while not state.ended:
        size = screen.size()
        if before != (state, size):
            columns, lines = size
            frame = drawing.draw(state, columns, lines, utf8)
            screen.show([drawing.styled(line, columns, colours) for line in frame])
            before = state, size
        sources = [feed.news, screen.wakeup, *(() if screen.keys is None else (screen.keys,))]
        ready, _, _ = select.select(sources, (), (), _LOOK_AGAIN_S)
        if screen.wakeup in ready:
            screen.attend()
            before = None
        for picture in feed.take():
            state = shown(state, picture)
        gone_s = feed.gone_s
        if gone_s is not None:
            if gone_s >= wait_s:
                raise feed.error
            state = replace(state, gone_s=int(gone_s))
        if screen.keys in ready:
            state = _keys(screen, state, drawing.rows_shown(size[1]))


def _keys(screen: Screen, state: State, rows: int) -> State:
    assert screen.keys is not None
    typed = os.read(screen.keys, 1024)
    if not typed:  # Ctrl-D at an odd moment, or the terminal is gone
        screen.keys = None
    for key in keys_of(typed):
        state = pressed(state, key, rows)
    return state
