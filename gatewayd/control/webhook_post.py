"""One attempt to deliver a webhook: a signed POST. No redirects, cookies, credentials or proxies of the environment.

Apart from `webhooks` since httpx takes 0.15 s of start-up, which only those who have alerts pay.
"""

from __future__ import annotations

import asyncio

import httpx

from gatewayd import __version__
from gatewayd.conf import TlsConf
from gatewayd.control.asking import answer_to
from gatewayd.control.probe import context_of, in_plain_words
from gatewayd.policy.webhooks import Reply, sign

TIMEOUT_S = 15.0  # for all of it; the specification recommends 15 to 30
USER_AGENT = f"gatewayd/{__version__} (webhook)"


async def post(url: str, secret: str, event_id: str, body: bytes, now_s: int, bound: bool) -> Reply:
    """What the receiver said to it. Never raises for what a receiver or the network does.

    `bound`: it may not be of the gateway's own machine.
    """
    request = httpx.Request(
        "POST",
        url,
        headers={
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Connection": "close",
            "webhook-id": event_id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": sign(secret, event_id, now_s, body),
        },
        content=body,
        extensions={"timeout": httpx.Timeout(TIMEOUT_S).as_dict()},
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            context = await context_of(TlsConf()) if request.url.scheme == "https" else False
            response = await answer_to(request, context, bound=bound)
    except TimeoutError:
        return Reply(error=f"it did not answer within {TIMEOUT_S:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Reply(error=in_plain_words(error))
    return Reply(response.status_code, retry_after=response.headers.get("retry-after", ""))
