"""`gatectl top`: what each key does, what frames look like, and the terminal, which is as it was however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import termios
import unicodedata
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from gatectl.top.screen import COLUMNS, draw, plain, rows_shown, styled
from gatectl.top.state import SORTS, VIEWS, State, keys_of, pressed, shown
from tests.gatectl import terminals
from tests.gatectl.conftest import Gatectl, press_until_it_ends
from tests.gatectl.fake_daemon import FakeDaemon
from tests.gatectl.fake_live import picture
from tests.gatectl.terminals import WITHIN_S, OnTerminal

GOLDEN = Path(__file__).parent.parent / "golden" / "top"
SEEN = shown(State(), picture())
FRAMES: dict[str, tuple[State, int, int]] = {
    "services-80x24": (SEEN, 80, 24),
    "services-200x10": (SEEN, 200, 10),
    "keys-80x24": (replace(SEEN, view="keys", sort="pressure"), 80, 24),
    "keys-120x12": (replace(SEEN, view="keys", filter="gw"), 120, 12),
    "targets-80x12": (replace(SEEN, view="targets", paused=True), 80, 12),
    "targets-140x12": (replace(SEEN, view="targets", sort="state"), 140, 12),
    "filtered-60x10": (replace(SEEN, typing="prod"), 60, 10),
    "nothing-found-80x10": (replace(SEEN, filter="xyz"), 80, 10),
    "gone-80x10": (replace(SEEN, gone_s=12), 80, 10),
    "narrow-40x10": (replace(SEEN, view="keys"), 40, 10),
    "tiny-20x4": (SEEN, 20, 4),
    "help-80x24": (replace(SEEN, help=True), 80, 24),
    "nothing-yet-80x8": (State(), 80, 8),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    """`GOLDEN_UPDATE=1` writes them anew; look at what changed."""
    state, width, height = FRAMES[name]
    text = "".join(plain(line, width).rstrip() + "\n" for line in draw(state, width, height))
    if os.environ.get("GOLDEN_UPDATE"):
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def test_no_frame_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(FRAMES)


@pytest.mark.parametrize("state", [state for state, _, _ in FRAMES.values()], ids=list(FRAMES))
def test_a_frame_is_as_large_as_the_screen_whatever_its_size(state: State) -> None:
    for width in (1, 5, 17, 40, 79, 80, 200):
        for height in (1, 2, 3, 6, 7, 24, 60):
            lines = draw(state, width, height)
            assert len(lines) == height
            for line in lines:
                cells = sum(2 if unicodedata.east_asian_width(ch) == "W" else 1 for ch in plain(line, width))
                assert cells == width, (width, plain(line, width))


def test_styles_mean_the_same_without_colours() -> None:
    line = [("a", "bad"), ("b", "warn"), ("c", "dim"), ("d", "")]
    assert styled(line, 5, True) == "\x1b[31;1ma\x1b[0m\x1b[33mb\x1b[0m\x1b[2mc\x1b[0md "
    assert styled(line, 5, False) == "\x1b[1ma\x1b[0mb\x1b[2mc\x1b[0md "


def test_what_a_name_holds_does_not_reach_the_terminal() -> None:
    evil = picture()
    evil["services"][0]["service"] = "a\x1b[2Jb"
    evil["problems"] = ["\x1b]0;title\x07"]
    for line in draw(shown(State(), evil), 80, 24):
        assert "\x1b" not in plain(line, 80)
        assert "\x07" not in plain(line, 80)


def test_each_sort_has_its_column() -> None:
    for view in VIEWS:
        assert {column.sort for column in COLUMNS[view]} - {""} == set(SORTS[view])


def test_eighty_columns_tell_whose_service_it_is() -> None:
    """Two tenants may each have one of that name; with one tenant there is nothing to tell."""
    one = picture()["services"][0]
    theirs = {**picture(), "services": [{**one, "tenant": tenant} for tenant in ("acme", "globex")]}
    heading, *rows = (plain(line, 80).split() for line in draw(shown(State(), theirs), 80, 24)[4:7])
    assert heading == ["SERVICE", "TENANT", "REQ/S▼", "ERR", "REF", "P50", "P99", "IN", "FL", "TARGETS"]
    assert [row[1] for row in rows] == ["acme", "globex"]


def names(state: State) -> list[str]:
    field = {"services": "service", "keys": "key", "targets": "url"}[state.view]
    return [row[field][-5:] for row in state.rows()]


def after(keys: str, state: State = SEEN, rows: int = 18) -> State:
    for key in keys.split():
        state = pressed(state, key, rows)
    return state


def test_keys_choose_views_and_sort() -> None:
    assert after("2").view == after("tab").view == after("left left").view == "keys"
    assert after("backtab").view == "targets"
    assert [after("s " * times).sorted_by for times in range(3)] == ["requests", "errors", "refused"]
    assert after("S").sorted_by == "name"
    assert names(after("")) == ["rders", "ducts", "quiet"]
    assert names(after("r")) == ["quiet", "ducts", "rders"]
    assert names(after("s")) == ["ducts", "rders", "quiet"]
    assert names(after("S")) == ["rders", "ducts", "quiet"], "names from A to Z"
    assert names(replace(SEEN, sort="p50", reverse=True)) == ["rders", "ducts", "quiet"], "what has none comes last"
    assert after("2 S S 1").sorted_by == "requests", "services have no pressure"


def test_keys_filter() -> None:
    state = after("/ P r O")
    assert (names(state), state.filter) == (["ducts"], "")
    assert names(after("backspace backspace backspace", state)) == ["rders", "ducts", "quiet"]
    kept = after("enter", state)
    assert (names(kept), kept.filter, kept.typing) == (["ducts"], "PrO", None)
    assert after("esc", kept).filter == ""
    assert after("esc", after("/ x", kept)).filter == "PrO", "it was not kept"
    assert after("q", after("/")).ended is False


def test_keys_pause_explain_and_leave() -> None:
    paused = after("p")
    other = {**picture(), "services": []}
    assert shown(paused, other).rows()
    assert not shown(after("p", paused), other).rows()
    assert after("?").help
    assert not after("? x").help
    assert after("q").ended
    assert after("? q").ended


def test_keys_move_through_rows() -> None:
    assert after("down", rows=2).offset == 1
    assert after("down down down end", rows=2).offset == 1
    assert after("down up up", rows=2).offset == 0
    assert after("end home", rows=1).offset == 0
    assert after("G", rows=1).offset == 2
    assert after("pagedown", rows=18).offset == 0, "all are there"
    moved = [plain(line, 80).split()[0] for line in draw(after("down", rows=1), 80, 7)[5:6]]
    assert (rows_shown(7), moved) == (1, ["products"])


def test_what_a_terminal_sends() -> None:
    assert list(keys_of(b"q\x1b[A\x1bOBs\t\x1b[Z\r\x7f\x1b")) == [
        "q", "up", "down", "s", "tab", "backtab", "enter", "backspace", "esc"
    ]  # fmt: skip
    assert list(keys_of(b"\x1b[1;5Cx\x1b[200~")) == ["x"], "what is not known is nothing"
    assert list(keys_of("ä\xff\x00".encode())) == ["ä", "ÿ"]
    assert list(keys_of(b"\xff\xfe")) == []


# On a terminal.


def on_terminal(gatectl: Gatectl, *arguments: str, **environment: str) -> AbstractContextManager[OnTerminal]:
    return terminals.on_terminal(gatectl, "top", *arguments, **environment)


def test_a_live_screen(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    with on_terminal(gatectl, "-t", "acme", "--every", "2s") as top:
        at = top.until("1,284 req/s")
        assert daemon.requests[0][2] == {"tenant": "acme", "every_s": "2"}
        daemon.state["top"] = {**picture(), "time": "2026-11-21T12:00:04Z", "workers_serving": 1}
        at = top.until("1 of 2 workers", at)
        top.type("2")
        at = top.until("PRESSURE", at)
        top.type("/ab12")
        at = top.until("/ab12", at)
        top.type("\r")
        at = top.until("q quit", at)
        termios.tcsetwinsize(top.its, (10, 200))
        os.killpg(top.process.pid, signal.SIGWINCH)
        at = top.until("LIMIT", at)
        assert "\x1b[31" in top.written
        top.type("q")
        assert top.ended() == 0
        assert top.last_words == ""
        frames = top.written.split("\x1b[?2026h")[1:]
        assert all(frame.count("\x1b[?2026l") == 1 for frame in frames)


def test_no_colours(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    with on_terminal(gatectl, NO_COLOR="1") as top:
        top.until("1,284 req/s")
        top.type("q")
        assert top.ended() == 0
        assert "\x1b[3" not in top.written


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("\x03", 130),
        ("\x1c", -signal.SIGQUIT),
        (signal.SIGINT, 130),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGHUP, -signal.SIGHUP),
    ],
    ids=["Ctrl-C", "Ctrl-backslash", "SIGINT", "SIGTERM", "SIGHUP"],
)
def test_however_it_ends_the_terminal_is_as_it_was(
    daemon: FakeDaemon, gatectl: Gatectl, end: str | signal.Signals, code: int
) -> None:
    with on_terminal(gatectl) as top:
        top.until("1,284 req/s")
        if isinstance(end, str):
            top.type(end)
        else:
            os.kill(top.process.pid, end)
        assert top.ended() == code
        assert top.last_words in ("", "^C", "^\\")


def test_the_terminal_cannot_be_stopped_under_it(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    """Else it could not be given back either."""
    with on_terminal(gatectl) as top:
        at = top.until("1,284 req/s")
        top.type("\x132")  # Ctrl-S
        top.until("PRESSURE", at)
        os.kill(top.process.pid, signal.SIGTERM)
        assert top.ended() == -signal.SIGTERM


def test_stopped_and_back(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    """A shell has it as a job, as an operator's does."""
    gatectl.argv = lambda *arguments: [  # type: ignore[method-assign]
        "bash", "-c", 'set -m; "$@"; echo "stopped $?"; read; fg; echo "ended $?"', "bash",
        sys.executable, "-m", "gatectl", *arguments,
    ]  # fmt: skip
    with on_terminal(gatectl) as top:
        at = top.until("1,284 req/s")
        top.type("\x1a")  # Ctrl-Z
        at = top.until("stopped 148", at)
        top.is_given_back()
        top.type("\n")
        at = top.until("1,284 req/s", top.until("\x1b[?1049h", at))
        top.type("q")
        top.until("ended 0", at)
        assert top.ended() == 0


def test_a_gateway_that_comes_back(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    with on_terminal(gatectl) as top:
        at = top.until("1,284 req/s")
        daemon.close()
        at = top.until("the gateway went away", at)
        again = FakeDaemon(daemon.path)
        try:
            again.state["top"] = {**picture(), "version": "0.2.0"}
            top.until("gatewayd 0.2.0", at)
            top.type("q")
            assert top.ended() == 0
        finally:
            again.close()


def test_a_gateway_that_stays_away(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    with on_terminal(gatectl, "--wait", "0s") as top:
        top.until("1,284 req/s")
        daemon.close()
        assert top.ended() == 6
        assert top.last_words == "gatectl: the gateway went away; 'gatectl status' tells whether it is back\n"


def test_what_is_wrong_from_the_start_is_one_line(gatectl: Gatectl) -> None:
    ended = gatectl.at_terminal("top")
    assert ended.code == 6
    assert ended.out == f"gatectl: no gateway at {gatectl.environment['GATECTL_SOCKET']}; start gatewayd or name its " \
                        "socket with --socket or GATECTL_SOCKET\n"  # fmt: skip
    for every in ("0s", "1.5s", "2m", "x"):
        assert gatectl("top", "--every", every).code == 2


def test_a_line_a_second_for_programs(daemon: FakeDaemon, gatectl: Gatectl) -> None:
    process = subprocess.Popen(
        gatectl.argv("top", "-o", "ndjson"), env=gatectl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == picture()
        daemon.state["top"] = {**picture(), "window_s": 3}
        assert json.loads(process.stdout.readline())["window_s"] == 3
        press_until_it_ends(process)
        assert process.wait(WITHIN_S) == 130
    finally:
        process.kill()
        process.communicate()
