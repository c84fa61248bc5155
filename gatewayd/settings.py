"""Settings of the daemon: flags, then `GATEWAYD_*`, then `gatewayd.toml`, then the defaults below.

What an operator changes while it runs (services, plans, keys) is not here but in the database.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gatewayd.errors import StartupError
from gatewayd.records import SEGMENT_BYTES, SLOTS_PER_SEGMENT

# sockaddr_un.sun_path holds 108 bytes with the closing NUL (unix(7)).
MAX_SOCKET_PATH_BYTES = 107
ENVIRONMENT_PREFIX = "GATEWAYD_"
JOURNAL_LIMIT_BYTES = 1 << 30  # eight million requests
# Two of a worker that serves, two of the one whose place it has taken and which still drains, or has just died.
SEGMENTS_OF_A_WORKER = 4


def default_state_dir() -> Path:
    """`STATE_DIRECTORY` of systemd, /var/lib/gatewayd for root, else $XDG_STATE_HOME/gatewayd."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/gatewayd")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gatewayd"


def default_admin_socket() -> Path:
    """/run/gatewayd/admin.sock for root, else below $XDG_RUNTIME_DIR, else in the default state folder.

    gatectl looks in the same places; it cannot import this, so its `client` says it again and a test compares the two.
    """
    if os.geteuid() == 0:
        return Path("/run/gatewayd/admin.sock")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "gatewayd" / "admin.sock"
    return default_state_dir() / "admin.sock"


def default_settings_file() -> Path:
    """Where `gatewayd.toml` is looked for when none is named."""
    if os.geteuid() == 0:
        return Path("/etc/gatewayd/gatewayd.toml")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "gatewayd" / "gatewayd.toml"


class Settings(BaseSettings):
    """One field a setting; the description is what `gatewayd --help` and the README say of it."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True, validate_default=True)

    listen: str = Field("127.0.0.1:8080", description="Address of the data plane, HOST:PORT; port 0 takes a free one.")
    state_dir: Path = Field(default_factory=default_state_dir, description="Folder of the database and the journals.")
    admin_socket: Path = Field(default_factory=default_admin_socket, description="Unix socket of the admin API.")
    admin_listen: str | None = Field(
        None, description="Address of the admin API for other machines, HOST:PORT: with TLS, and tokens."
    )
    admin_tls_cert: Path | None = Field(None, description="Certificate and its chain, PEM, of `admin_listen`.")
    admin_tls_key: Path | None = Field(None, description="Private key of that certificate, PEM, without a passphrase.")
    workers: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)), ge=1, le=256, description="Worker processes."
    )
    tls_cert: Path | None = Field(None, description="Certificate and its chain, PEM: the data plane speaks TLS.")
    tls_key: Path | None = Field(None, description="Private key of the certificate, PEM, without a passphrase.")
    tls_client_ca: Path | None = Field(None, description="Authorities, PEM, whose certificates clients may show.")
    tls_client_auth: Literal["none", "optional", "required"] = Field(
        "none", description="Whether clients are asked for a certificate, and must have one."
    )
    # From the environment as it is written, not as JSON.
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="Networks of proxies whose X-Forwarded-* and Forwarded are believed; with commas between."
    )
    proxy_protocol: bool = Field(
        False, description="Every connection begins with a PROXY protocol header, version 1 or 2."
    )
    on_full: Literal["refuse", "serve"] = Field(
        "refuse", description="What to do with requests that cannot be recorded because the disk is full."
    )
    journal_sync: Literal["process", "second", "record"] = Field(
        "process",
        description="What usage outlives: the end of any process, or power cuts too, but for a second or not.",
    )
    journal_limit_bytes: int = Field(
        JOURNAL_LIMIT_BYTES,
        ge=1,
        description="Disk that journals may take while control is behind; then on_full applies.",
    )
    journal_keep_bytes: int = Field(
        256 << 20, ge=0, description="Disk for journals that are ingested, for `usage verify` to count again."
    )
    hourly_usage_days: int = Field(
        90, ge=1, description="How long usage is kept by the hour; never before it is billed."
    )
    daily_usage_days: int = Field(1100, ge=1, description="The same by the day, from which older bills are shown.")
    drain_timeout_s: int = Field(30, ge=0, le=3600, description="Longest wait for requests in flight on SIGTERM.")
    head_timeout_s: int = Field(10, ge=1, le=600, description="Longest wait for a request's head.")
    keep_alive_s: int = Field(75, ge=1, le=3600, description="How long an idle client connection is kept.")
    upstream_idle_s: int = Field(30, ge=1, le=3600, description="How long an idle upstream connection is kept.")
    head_limit_bytes: int = Field(32768, ge=1024, le=1 << 20, description="Largest request head (431 beyond).")
    target_limit_bytes: int = Field(8192, ge=256, le=1 << 16, description="Longest request target (414 beyond).")
    body_limit_bytes: int | None = Field(None, ge=0, description="Largest request body, unless a service has its own.")
    cached_keys: int = Field(100_000, ge=16, description="Keys that a worker remembers.")
    connections_limit: int = Field(
        16384, ge=1, le=1 << 20, description="Client connections of each worker at once (503 beyond)."
    )
    in_flight_limit: int = Field(  # no more than a spare segment has slots: each of them has one, whatever happens
        8192, ge=1, le=SLOTS_PER_SEGMENT, description="Requests of each worker at once (503 beyond)."
    )
    upstream_age_s: int = Field(
        3600, ge=1, le=86400, description="Age from which on an upstream connection serves no further request."
    )
    upstream_idle_limit: int = Field(256, ge=0, description="Idle connections kept, for each target and worker.")
    connecting_limit: int = Field(
        1024, ge=1, description="Connections being made, for each target and worker (503 beyond)."
    )
    resolve_s: int = Field(
        10, ge=1, le=3600, description="How long the addresses of an upstream's name are remembered."
    )

    invoice_after_s: int = Field(
        3600, ge=-1, le=31 * 86400, description="Age at which a billing cycle that is over is closed; -1 by hand only."
    )

    @field_validator("listen", "admin_listen")
    @classmethod
    def _listen_is_host_and_port(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @field_validator("admin_socket")
    @classmethod
    def _socket_path_is_short_enough(cls, value: Path) -> Path:
        path = value.absolute()
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(f"path is longer than the {MAX_SOCKET_PATH_BYTES} bytes that a Unix socket's may have")
        return path

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks_are_read(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ValueError("must be networks such as 10.0.0.0/8, ::1")
        return tuple(ip_network(str(part).strip()) for part in parts if str(part).strip())

    @field_validator("tls_cert", "tls_key", "tls_client_ca", "admin_tls_cert", "admin_tls_key", mode="before")
    @classmethod
    def _is_no_pem(cls, value: object) -> object:
        if isinstance(value, str) and ("-----" in value or "\n" in value):
            raise ValueError("must be the path of a file, not what is in the file")
        return value

    @field_validator(
        "state_dir", "admin_socket", "tls_cert", "tls_key", "tls_client_ca", "admin_tls_cert", "admin_tls_key",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _path_is_not_empty(cls, value: object) -> object:
        if value is not None and str(value).strip() in ("", "."):  # Path("") is the current folder, which nobody meant
            raise ValueError("must be a path; for the current folder write it out")
        return value

    @field_validator("state_dir", "tls_cert", "tls_key", "tls_client_ca", "admin_tls_cert", "admin_tls_key")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.absolute()

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            there, missing = ("tls_key", "tls_cert") if self.tls_cert is None else ("tls_cert", "tls_key")
            raise ValueError(f"{there} is set and {missing} is not; TLS takes both")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca is set and tls_cert is not; client certificates take TLS")
        if (self.tls_client_ca is None) != (self.tls_client_auth == "none"):
            raise ValueError('tls_client_ca goes with tls_client_auth = "optional" or "required"; one alone is nothing')
        return self

    @model_validator(mode="after")
    def _admin_tls_is_whole(self) -> Settings:
        if (self.admin_tls_cert is None) != (self.admin_tls_key is None):
            pair = ("admin_tls_key", "admin_tls_cert")
            there, missing = pair if self.admin_tls_cert is None else reversed(pair)
            raise ValueError(f"{there} is set and {missing} is not; TLS takes both")
        if self.admin_tls_cert is not None and self.admin_listen is None:
            raise ValueError("admin_tls_cert is set and admin_listen is not; on the Unix socket there is no TLS")
        return self

    @model_validator(mode="after")
    def _journals_have_room(self) -> Settings:
        needed = self.workers * SEGMENTS_OF_A_WORKER * SEGMENT_BYTES
        if self.journal_limit_bytes < needed and self.journal_limit_bytes != JOURNAL_LIMIT_BYTES:
            raise ValueError(f"journal_limit_bytes must be at least {needed}: {SEGMENTS_OF_A_WORKER} segments a worker")
        return self

    @property
    def journal_bound_bytes(self) -> int:
        """`journal_limit_bytes`, whose default grows with the number of workers."""
        return max(self.journal_limit_bytes, self.workers * SEGMENTS_OF_A_WORKER * SEGMENT_BYTES)

    @model_validator(mode="after")
    def _days_outlast_hours(self) -> Settings:
        if self.daily_usage_days < self.hourly_usage_days:
            raise ValueError("daily_usage_days is less than hourly_usage_days; days outlast their hours")
        return self

    @property
    def scheme(self) -> str:
        """What a URL of the data plane begins with."""
        return "http" if self.tls_cert is None else "https"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if _settings_file is not None:
            sources += (TomlConfigSettingsSource(settings_cls, _settings_file),)
        return sources


# pydantic-settings asks the class, not the call, for its sources; `load` sets this for the duration of one call.
_settings_file: Path | None = None


def load(flags: dict[str, Any], file: Path | None = None) -> Settings:
    """Settings from flags (those that were given), environment and file. Raises StartupError with one line."""
    global _settings_file
    if file is not None and not file.is_file():
        raise StartupError(f"settings file {file} does not exist")
    _settings_file = file or (default_settings_file() if default_settings_file().is_file() else None)
    try:
        return Settings(**flags)
    except ValidationError as error:
        raise StartupError(_what_is_wrong(error)) from None
    except UnicodeDecodeError:
        raise StartupError(f"settings file {_settings_file} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"settings file {_settings_file}: {error}") from None
    except OSError as error:
        raise StartupError(f"settings file {_settings_file} cannot be read: {error.strerror}") from None
    finally:
        _settings_file = None


def _what_is_wrong(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"setting {name} is not known{_nearest(name)}"
    message = str(first["msg"]).removeprefix("Value error, ")
    if not name:  # of several settings together
        return f"settings: {message}"
    got = (
        "" if name.startswith(("tls_", "admin_tls_")) else f" (got {first['input']!r})"
    )  # somebody may have pasted a key
    return f"setting {name}: {message[:1].lower()}{message[1:]}{got}"


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """One line about each variable that looks like a setting and is none: a mistyped one would go unnoticed."""
    lines = []
    for variable in environment:
        name = variable.lower().removeprefix(ENVIRONMENT_PREFIX.lower())
        if name != variable.lower() and name not in Settings.model_fields:
            lines.append(f"{variable} in the environment is no setting{_nearest(name, ENVIRONMENT_PREFIX)}")
    return lines


def _nearest(name: str, prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(Settings.model_fields), 1)
    return f"; did you mean {prefix}{near[0].upper() if prefix else near[0]}?" if near else ""


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT` as a pair. Raises ValueError with a sentence."""
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{port!r} is not a port between 0 and 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)
