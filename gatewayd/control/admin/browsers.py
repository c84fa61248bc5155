"""What a browser sends for a page that is not ours.

On the Unix socket a user is enough, and no token is shown. Once somebody has forwarded it to a port of his machine
(`ssh -L`, to read /docs) a browser may connect as that user, and does so for every page that it shows: one from
elsewhere can have it POST what has no body, and one whose name is made to lead to that port (DNS rebinding) can read
the answers too. The first is told by what browsers say of a request's origin, the second by the name it is sent to:
ours are addresses, or names without a dot, which are nobody's to give out.
"""

from __future__ import annotations

from ipaddress import ip_address

from starlette.datastructures import Headers

_OWN = ("same-origin", "none")  # none: typed, or a bookmark (Fetch Metadata)


def refusal(headers: Headers) -> str | None:
    """Why a request that no token came with is not answered."""
    hosts = [host.lower() for host in headers.getlist("host")]
    origins = headers.getlist("origin")
    if any(origin.lower().partition("://")[2] not in hosts for origin in origins):
        return f"the page that asks is of {origins[0][:80]}, and not of this gateway"
    if any(site not in _OWN for site in headers.getlist("sec-fetch-site")):
        return "the page that asks is not of this gateway"
    if any(_may_lead_anywhere(host) for host in hosts):
        return f"{hosts[0][:80]!r} may lead anywhere: on the socket call the gateway by an address or as http://gateway"
    return None


def _may_lead_anywhere(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if "." not in name or name.startswith("["):
        return False
    try:
        ip_address(name)
    except ValueError:
        return True
    return False
