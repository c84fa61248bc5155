"""A request of control's own to somebody's server: of a health check, or with what an alert has to tell."""

from __future__ import annotations

import asyncio
import socket
import ssl

import httpx

from gatewayd.own_machine import MOST_JUDGED, REFUSED, is_of_this_machine


async def answer_to(
    request: httpx.Request, context: ssl.SSLContext | bool, *, bound: bool, uds: str | None = None
) -> httpx.Response:
    """The answer's head, on a connection of its own. Its body is not read.

    `bound`: somebody bound to a tenant has named the URL. Then it is looked up here, and connected to where it leads
    outside of this machine: between a look-up that is judged and another one that is used, a name may be moved.
    """
    if not bound:
        return await _asked(request, context, uds)
    failure: httpx.TransportError = httpx.ConnectError(REFUSED)
    for address in (await _addresses(request.url))[:MOST_JUDGED]:
        if is_of_this_machine(address):
            continue
        try:
            return await _asked(_sent_to(address, request), context, None)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # nothing was sent: the next may be tried
            failure = error
    raise failure


async def _asked(request: httpx.Request, context: ssl.SSLContext | bool, uds: str | None) -> httpx.Response:
    # The transport and not a client: nothing follows redirects, reads the environment or keeps a cookie.
    async with httpx.AsyncHTTPTransport(verify=context, trust_env=False, uds=uds) as transport:
        response = await transport.handle_async_request(request)
        await response.aclose()
        return response


def _sent_to(address: str, request: httpx.Request) -> httpx.Request:
    """The same, and so with the same Host, and the same name in the certificate."""
    name = request.url.raw_host.decode()
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={"sni_hostname": name.rstrip("."), **request.extensions},
    )


async def _addresses(url: httpx.URL) -> tuple[str, ...]:
    """Raises ConnectError where the name has none, or is none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.raw_host.decode(), 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(str(error)) from None
    return tuple(dict.fromkeys(str(info[4][0]) for info in found))
