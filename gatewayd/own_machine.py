"""Which addresses are of the gateway's own machine or link, past what guards these from the network.

A name may lead anywhere, and elsewhere in a moment. So where somebody who is bound to a tenant has named a target or
the receiver of an alert, it is the address that is judged, when it is connected to: by workers, by the probes of
health checks and by the deliveries of alerts.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address

# Who is told of it named the target, or calls the service: it names no host and no address.
REFUSED = "its address is of the gateway's own machine or network link, where nobody bound to a tenant may lead it"

# So many addresses of a name: to judge one takes 20 us of the loop, and a name of theirs may have thousands.
MOST_JUDGED: Final = 16

# Of the machine's hypervisor, though not link-local: AWS, GCP and Scaleway over IPv6, Alibaba Cloud, Azure, Oracle.
_METADATA = frozenset(
    map(
        ip_address,
        ("fd00:ec2::254", "fd20:ce::254", "fd00:42::42", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are the address behind it


def is_of_this_machine(written: str) -> bool:
    """Also what is no address: a socket's path is of this machine."""
    try:
        # Without its zone: the kernel takes one along with any address, and looks at it of link-local ones alone.
        address = ip_address(written.partition("%")[0])
    except ValueError:
        return True
    return any(_is_near(each) or _is_bound_here(each) for each in _meant_by(address))


def _meant_by(address: Address) -> list[Address]:
    """The address, and the one that is written into it."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    within = address.sixtofour
    if within is None and address in _NAT64:
        within = IPv4Address(int(address) & 0xFFFFFFFF)
    return [address] if within is None else [address, within]


def _is_near(address: Address) -> bool:
    near = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    return near or address in _METADATA


def _is_bound_here(address: Address) -> bool:
    """An address of this machine: whoever connects to one comes from it, past what guards it from the network.

    To connect a datagram socket sends nothing. (To bind one would tell too, but not where net.ipv4.ip_nonlocal_bind is
    set, as it often is beside keepalived.)
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((str(address), 9))
            return bool(ip_address(asking.getsockname()[0]) == address)
    except OSError:  # no way leads there
        return False
