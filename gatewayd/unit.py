"""The systemd unit that `gatewayd unit` prints, for the settings that it was given.

A user of its own that exists while it runs (DynamicUser), one folder for its state and one for its socket, and nothing
else of the machine that it could write. What is not the default has its reason beside it in the unit.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatewayd.settings import Settings, split_address

STATE_DIR, RUNTIME_DIR = Path("/var/lib/gatewayd"), Path("/run/gatewayd")
_FILES = ("tls_cert", "tls_key", "tls_client_ca", "admin_tls_cert", "admin_tls_key")
_FIRST_PORT_OF_ANYBODY = 1024
_OPEN_FILES = 1 << 20  # a client and an upstream connection are one each; workers lower connections_limit to what fits

_UNIT = """\
[Unit]
Description=gatewayd, an API gateway
Documentation=man:gatewayd(8)
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart={command}
# Workers are replaced one by one, and no connection is dropped.
ExecReload=kill -HUP $MAINPID
Restart=on-failure
# What is in flight is finished first: drain_timeout_s, and some more to write it down.
TimeoutStopSec={stop_s}
# The supervisor tells its processes to end, in their order; what is left after that is killed.
KillMode=mixed

DynamicUser=yes
User=gatewayd
StateDirectory=gatewayd
StateDirectoryMode=0700
RuntimeDirectory=gatewayd
# The socket in it is for its group alone; who may ask is decided there.
RuntimeDirectoryMode=0755
UMask=0077
LimitNOFILE={open_files}
{more}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def unit(settings: Settings, flags: Mapping[str, Any], config: Path | None) -> str:
    """The unit's text. `flags` are those that were typed, `config` the settings file that was named."""
    options = {name: value for name, value in flags.items() if value not in (None, False)}
    options.setdefault("admin_socket", RUNTIME_DIR / "admin.sock")  # where gatectl of root looks for it
    command = [*_program(), *(["--config", str(config.absolute())] if config else [])]
    for name, value in options.items():
        command.append(f"--{name.replace('_', '-')}")
        if value is not True:
            command.append(str(value.absolute() if isinstance(value, Path) else value))
    more = []
    if 0 < split_address(settings.listen)[1] < _FIRST_PORT_OF_ANYBODY:
        more += ["AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"]
    else:
        more.append("CapabilityBoundingSet=")
    writable = {path for path in _folders(settings, options) if not _within(path, (STATE_DIR, RUNTIME_DIR))}
    more += [f"ReadWritePaths={_escaped(str(path))}" for path in sorted(writable)]
    return _UNIT.format(
        command=" ".join(_escaped(word) for word in command),
        stop_s=settings.drain_timeout_s + 15,
        open_files=_OPEN_FILES,
        more="\n".join(more),
    )


def warnings(settings: Settings) -> list[str]:
    """What keeps the unit from working as it is, a line each."""
    lines = []
    files = (getattr(settings, name) for name in _FILES)
    for part in (_program()[0], *(str(file) for file in files if file is not None)):
        closed = next((folder for folder in Path(part).parents if not folder.stat().st_mode & 0o001), None)
        if closed is not None:
            lines.append(
                f"{part} is below {closed}, which the unit's user cannot enter; put it elsewhere, such as /opt"
            )
    return lines


def _program() -> list[str]:
    """What was started, by its whole path."""
    script = Path(sys.argv[0]).absolute()
    return [str(script)] if script.name == "gatewayd" and script.exists() else [sys.executable, "-m", "gatewayd"]


def _folders(settings: Settings, options: Mapping[str, Any]) -> list[Path]:
    given = [settings.state_dir] if "state_dir" in options or settings.state_dir != _default_state() else []
    return [*given, Path(options["admin_socket"]).absolute().parent]


def _default_state() -> Path:
    """Of whoever types the command; the unit's is systemd's, which is told by STATE_DIRECTORY."""
    return Path(str(Settings.model_fields["state_dir"].get_default(call_default_factory=True)))


def _within(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _escaped(word: str) -> str:
    """systemd.service(5) and systemd.unit(5): % begins a specifier, $ a variable."""
    return shlex.quote(word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$"))
