"""One probe: a GET on a connection of its own, without credentials, cookies or proxies; a redirect is an answer."""

from __future__ import annotations

import asyncio
import ssl
import time

import httpx

from gatewayd import __version__
from gatewayd.conf import HealthConf, TlsConf
from gatewayd.control.asking import answer_to
from gatewayd.policy.snapshot import compile_target
from gatewayd.upstream_tls import TlsFileError, upstream_context

USER_AGENT = f"gatewayd/{__version__} (health check)"
_CONTEXT_S = 60.0  # files are read again after so long; the system's authorities cost 20 ms each time

_contexts: dict[TlsConf, tuple[float, ssl.SSLContext]] = {}


async def probe(url: str, health: HealthConf, tls: TlsConf, bound: bool = False) -> str | None:
    """Ask the target for its health path, below its base. Why it is not well, in a sentence; None if it is."""
    target = compile_target(url, tls, bound)
    address = url if target.port else f"http://localhost{target.base.decode()}"
    extensions = {"timeout": httpx.Timeout(health.timeout_s).as_dict()}
    if target.tls is not None:
        extensions["sni_hostname"] = target.server_name  # type: ignore[assignment]
    try:
        context = False if target.tls is None else await context_of(target.tls)
        request = httpx.Request(
            "GET",
            f"{address}{health.path}",
            headers={
                "Host": target.host_header.decode(),  # as requests have it: without an IPv6 zone
                "User-Agent": USER_AGENT,
                "Accept": "*/*",
                "Connection": "close",
            },
            extensions=extensions,
        )
        response = await answer_to(request, context, uds=None if target.port else target.host, bound=bound)
    except TlsFileError:
        return "the gateway cannot read the certificates that it needs for it"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return in_plain_words(error)
    return None if 200 <= response.status_code < 400 else f"it answered {response.status_code}"


def in_plain_words(error: Exception) -> str:
    """Why there is no answer, in a sentence."""
    match error:
        case httpx.TimeoutException():
            return "it did not answer in time"
        case httpx.ConnectError():
            return f"no connection ({error})"
        case httpx.RemoteProtocolError() | httpx.ReadError():
            return "it closed the connection or sent an invalid answer"
    return f"it could not be asked ({error})"


async def context_of(tls: TlsConf) -> ssl.SSLContext:
    """For an HTTPS connection of control's own. Raises TlsFileError."""
    made = _contexts.get(tls)
    if made is None or time.monotonic() - made[0] > _CONTEXT_S:
        context = await asyncio.to_thread(upstream_context, tls)
        _contexts[tls] = made = (time.monotonic(), context)
        for old in [conf for conf, (at, _) in _contexts.items() if made[0] - at > 2 * _CONTEXT_S]:
            del _contexts[old]
    return made[1]
