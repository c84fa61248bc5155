"""The whole terminal for a while, and given back as it was found, however it ends.

Keys come one by one and unseen, but Ctrl-C and Ctrl-Z stay signals. Signals that end us are raised, so that they get
through even where a write waits for a slow line; Ctrl-Z and a new size are only noted, and wake up whoever waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from types import FrameType, TracebackType
from typing import Any

# The other screen (what was there stays on the first one), no cursor, lines that are too long are cut.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
# A frame is shown at once by terminals that know how (mode 2026); others take no notice.
_BEGIN, _END = b"\x1b[?2026h", b"\x1b[?2026l"
_HOME, _CLEAR = b"\x1b[H", b"\x1b[2J"
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # the last is Ctrl-\
_USUAL = (80, 24)


class EndedError(BaseException):
    """A signal that ends us. Nobody but who gives the terminal back should catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Screen:
    """`with Screen() as screen`: draws on standard output, reads keys of its terminal."""

    def __init__(self) -> None:
        self._out = sys.stdout.fileno()
        self.keys: int | None = None  # to be read where there are some
        self._own_keys = False
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._wakeup: tuple[int, int] = (-1, -1)
        self._size = _USUAL
        self._clear = True
        self._wants_stop = False

    def __repr__(self) -> str:
        return f"<Screen {self._size[0]}x{self._size[1]}>"

    @property
    def wakeup(self) -> int:
        """Readable when a signal has come."""
        return self._wakeup[0]

    def __enter__(self) -> Screen:
        sys.stdout.flush()
        self._open_keys()
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number, handler in (
            *((ending, _end) for ending in _ENDING),
            (signal.SIGWINCH, self._note),
            (signal.SIGTSTP, self._note),
        ):
            self._handlers[number] = signal.signal(number, handler)
        try:
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (signal.SIGINT, *_ENDING):  # a second Ctrl-C must not leave it half given back
            self._handlers.setdefault(number, signal.getsignal(number))
            signal.signal(number, signal.SIG_IGN)
        self._give_back()
        signal.set_wakeup_fd(-1)
        for taken, handler in self._handlers.items():
            signal.signal(taken, handler)
        for descriptor in (*self._wakeup, *((self.keys,) if self._own_keys and self.keys is not None else ())):
            os.close(descriptor)

    def _open_keys(self) -> None:
        if sys.stdin is not None and sys.stdin.isatty():
            self.keys = sys.stdin.fileno()
            return
        with contextlib.suppress(OSError):  # what comes on standard input is not for us
            self.keys = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
            self._own_keys = True

    def _take(self) -> None:
        if self.keys is not None:
            self._before = termios.tcgetattr(self.keys)
            unseen = [*self._before]
            unseen[0] &= ~termios.IXON  # stopped with Ctrl-S, it would keep us from giving it back
            unseen[3] &= ~(termios.ICANON | termios.ECHO)
            unseen[6] = [*self._before[6]]
            unseen[6][termios.VMIN], unseen[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self.keys, termios.TCSADRAIN, unseen)
        self._write(_ENTER)
        self._clear = True

    def _give_back(self) -> None:
        with contextlib.suppress(OSError, termios.error):  # it may be gone
            self._write(_LEAVE)
        with contextlib.suppress(OSError, termios.error):
            if self.keys is not None and self._before:
                termios.tcsetattr(self.keys, termios.TCSADRAIN, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._wants_stop = self._wants_stop or number == signal.SIGTSTP

    def attend(self) -> None:
        """What signals have asked for: stop, with the terminal given back meanwhile."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup[0], 4096)
        if self._wants_stop:
            self._wants_stop = False
            self._give_back()
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, self._note)  # here we are again
            self._take()

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:
            columns, lines = _USUAL
        size = (columns or _USUAL[0], lines or _USUAL[1])
        if size != self._size:
            self._size, self._clear = size, True
        return size

    def show(self, lines: list[str]) -> None:
        """A frame, in one write. Each line is as wide as the screen, so nothing has to be wiped first."""
        clear, self._clear = (_CLEAR if self._clear else b""), False
        text = "\r\n".join(lines).encode(sys.stdout.encoding or "utf-8", "replace")
        self._write(_BEGIN + clear + _HOME + text + _END)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._out, data) :]


def _end(number: int, frame: FrameType | None) -> None:
    raise EndedError(number)
