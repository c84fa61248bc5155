"""Contexts: gateways elsewhere under names, in a file of one's own.

`$XDG_CONFIG_HOME/gatectl/contexts.json`, mode 0600 in a folder of mode 0700, for it holds tokens; a file that others
can read is not used. It is replaced at once or stays as it is. `local` is this machine's gateway, and always there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from gatectl.errors import GatectlError, MisuseError, NotFoundError, RejectedError, nearest

LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}", re.ASCII)


class Context(NamedTuple):
    """A gateway: its URL, the token to show it, and the file of the authorities that sign its certificate."""

    url: str
    token: str = ""
    ca: str = ""


class Contexts:
    """What the file says. `current` is what a command takes that names nothing else."""

    def __init__(self, current: str = LOCAL, by_name: dict[str, Context] | None = None) -> None:
        self.current = current
        self.by_name = by_name or {}

    def __repr__(self) -> str:
        return f"<Contexts {', '.join(self.by_name) or 'none'}; current {self.current}>"

    def named(self, name: str) -> Context:
        """Raises NotFoundError, with the name that was probably meant."""
        if name not in self.by_name:
            near = nearest(name, self.by_name)
            hint = f"did you mean {near!r}?" if near else "'gatectl context list' shows what there is"
            raise NotFoundError(f"there is no context {name!r}", hint)
        return self.by_name[name]

    def add(self, name: str, context: Context) -> None:
        """Raises what is wrong with the name, or RejectedError where it is taken."""
        if name == LOCAL:
            raise MisuseError(f"{LOCAL!r} is the gateway of this machine", "take another name")
        if not _NAME.fullmatch(name):
            raise MisuseError(f"{name!r} cannot be a context's name", "take letters, digits, and . _ @ - between them")
        if name in self.by_name:
            hint = f"'gatectl context set {name}' changes it, 'gatectl context remove {name}' takes it away"
            raise RejectedError(f"context {name!r} exists already", hint)
        self.by_name[name] = context

    def remove(self, name: str) -> Context:
        """Take it out; where it was current, `local` is."""
        context = self.named(name)
        del self.by_name[name]
        if self.current == name:
            self.current = LOCAL
        return context

    def rename(self, old: str, new: str) -> None:
        """It stays current if it was."""
        context, current = self.named(old), self.current
        self.add(new, context)
        self.remove(old)
        self.current = new if current == old else current


def file_path() -> str:
    """Where contexts are kept."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 (a str is all)
    return f"{home}/gatectl/contexts.json"


def load() -> Contexts:
    """What there is; nothing where there is no file. Raises what is wrong with it."""
    path = file_path()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (a str is all)
            text, found = file.read(), os.fstat(file.fileno())
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except OSError as error:
        raise GatectlError(f"cannot read {path}: {error.strerror}") from None
    # Whoever may write it says where commands go, and with them GATECTL_TOKEN; root may wherever it likes.
    if found.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        raise GatectlError(f"{path} is another user's", "move it away and add its contexts again")
    if found.st_mode & 0o022:
        raise GatectlError(
            f"others can write {path}", f"look whether it is as it was; 'chmod 600 {path}' shuts them out"
        )
    contexts = _parsed(path, text)
    if found.st_mode & 0o077 and any(context.token for context in contexts.by_name.values()):
        raise GatectlError(
            f"{path} holds tokens, and others can read it",
            f"'chmod 600 {path}' shuts them out; revoke the tokens if somebody may have looked",
        )
    return contexts


def names() -> list[str]:
    """For completion: silent where there is nothing, or nothing to read."""
    try:
        return [LOCAL, *sorted(load().by_name)]
    except (GatectlError, OSError):
        return [LOCAL]


@contextmanager
def changed() -> Iterator[Contexts]:
    """What there is, to be changed, and written when it was. Two terminals wait for each other."""
    import fcntl

    path = file_path()
    folder = os.path.dirname(path)  # noqa: PTH120 (a str is all)
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)  # noqa: PTH103, PTH120
        if not os.path.isdir(folder):  # noqa: PTH112
            os.mkdir(folder, 0o700)  # noqa: PTH102
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise GatectlError(f"cannot write {path}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        contexts = load()
        yield contexts
        _store(os.path.realpath(path), contexts)  # where it is a link, what it leads to is replaced and not the link
    finally:
        os.close(lock)


def _parsed(path: str, text: bytes) -> Contexts:
    try:
        document = json.loads(text)
        by_name = {name: _context(each) for name, each in document["contexts"].items()}
        current = document.get("current") or LOCAL
    except (ValueError, KeyError, TypeError, AttributeError):
        raise GatectlError(f"{path} is damaged", "mend it, or move it away and add its contexts again") from None
    return Contexts(str(current), by_name)


def _context(document: dict[str, Any]) -> Context:
    values = [document["url"], document.get("token", ""), document.get("ca", "")]
    if not all(isinstance(value, str) for value in values):
        raise TypeError
    return Context(*values)


def _store(path: str, contexts: Contexts) -> None:
    by_name = {
        name: {field: value for field, value in context._asdict().items() if value}
        for name, context in sorted(contexts.by_name.items())
    }
    text = json.dumps({"current": contexts.current, "contexts": by_name}, indent=2) + "\n"
    part = f"{path}.{os.getpid()}.part"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())  # a full disk may say so only now
        os.replace(part, path)  # noqa: PTH105 (a str is all)
    except BaseException as error:
        if os.path.exists(part):  # noqa: PTH110
            os.unlink(part)  # noqa: PTH108
        if isinstance(error, OSError):
            raise GatectlError(f"cannot write {path}: {error.strerror}", "nothing was changed") from None
        raise
