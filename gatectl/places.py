"""Where the gateway's admin socket is, if nobody says. Completion needs no more of all that `client` does."""

from __future__ import annotations

import os


def default_socket() -> str:
    """/run/gatewayd/admin.sock for root, else below $XDG_RUNTIME_DIR, else in the default state folder.

    gatewayd's `settings.default_admin_socket` says the same; a test compares the two.
    """
    if os.geteuid() == 0:
        return "/run/gatewayd/admin.sock"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return f"{runtime}/gatewayd/admin.sock"
    if given := os.environ.get("STATE_DIRECTORY"):
        return f"{given.split(':')[0]}/admin.sock"
    state_home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 (a str is all)
    return f"{state_home}/gatewayd/admin.sock"
