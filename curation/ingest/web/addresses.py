"""Which addresses of the network the downloader may talk to: those of the public internet, and no others.

A URL from a stranger's list must not make this machine ask its own services, its neighbours, or its cloud's
metadata server. The name in a URL says nothing about that (anyone may let a name point to 127.0.0.1), so the
address itself is judged: once where a name is resolved, and again for every single socket before it connects.
Between that second check and the connection there is nothing to be looked up anew, so no name can change its
meaning in between.
"""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What Python's tables, which differ between its versions, let through or do not know in all of them.
_NEVER_PUBLIC = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers (RFC 6598); the metadata server of one cloud lies in it
        "168.63.129.16/32",  # a public address at which a cloud answers its own machines
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",  # IPv4-compatible; with it :: and ::1
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/9",  # link-local, and the site-local range that came before unique local addresses
        "ff00::/8",
    )
)
_MAPPED = ip_network("::ffff:0:0/96")
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
_SIX_TO_FOUR = ip_network("2002::/16")
_TEREDO = ip_network("2001::/32")

# Names that stand for something on this machine or in its own network, whatever a resolver says (RFC 6761,
# 6762, 8375; `internal` is reserved by ICANN for private use).
_PRIVATE_SUFFIXES = ("localhost", "local", "internal", "home.arpa", "onion", "localdomain")


class ForbiddenAddressError(OSError):
    """A connection to an address that is not public, and that the config does not name."""

    def __init__(self) -> None:
        super().__init__("the address is not a public one")


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """The networks that these texts name, such as `10.0.0.0/8`.

    Raises:
        ValueError: for a text that is no network.
    """
    return tuple(ip_network(text) for text in texts)


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether the downloader may connect to `address`.

    An address that stands for an IPv4 address (mapped, NAT64, 6to4, Teredo) is allowed only where that one is
    too, since a gateway on the way may lead to it.

    Args:
        allowed: networks that are allowed though they are not public.
    """
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False  # an address of one network interface
    inner = _embedded(address)
    if inner is not None and address in _MAPPED:
        return is_allowed(inner, allowed)
    if any(address in network for network in allowed if network.version == address.version):
        return inner is None or is_allowed(inner, allowed)
    if inner is not None or any(address in network for network in _NEVER_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return None
    bits = int(address)
    if address in _MAPPED or any(address in network for network in _NAT64):
        return IPv4Address(bits & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(bits >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        return IPv4Address(bits & 0xFFFFFFFF ^ 0xFFFFFFFF)
    return None


def is_private_name(host: str) -> bool:
    """Whether a name is one of the own network: without a dot, or below a suffix kept for such names."""
    name = host.rstrip(".").lower()
    return "." not in name or name.endswith(tuple(f".{suffix}" for suffix in _PRIVATE_SUFFIXES))


class CheckedResolver(AbstractResolver):
    """Resolves names, and gives back only addresses that are allowed."""

    def __init__(self, resolver: AbstractResolver, allowed: Sequence[Network]) -> None:
        self._resolver = resolver
        self._allowed = tuple(allowed)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The allowed addresses of `host`.

        Raises:
            ForbiddenAddressError: when it has addresses, and none is allowed.
            OSError: when it has none.
        """
        found = await self._resolver.resolve(host, port, family)
        kept = [result for result in found if _text_is_allowed(result["host"], self._allowed)]
        if found and not kept:
            raise ForbiddenAddressError
        return kept

    async def close(self) -> None:
        """Close the resolver within."""
        await self._resolver.close()


def checked_socket(allowed: Sequence[Network]) -> Callable[[tuple[Any, ...]], socket.socket]:
    """What makes the downloader's sockets: none for an address that is not allowed.

    The socket that is given out is connected to the very address that was checked.
    """
    networks = tuple(allowed)

    def make(address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, socket_address = address_info
        if not _text_is_allowed(socket_address[0], networks):
            raise ForbiddenAddressError
        return socket.socket(family, kind, protocol)

    return make


def _text_is_allowed(text: str, allowed: Sequence[Network]) -> bool:
    try:
        return is_allowed(ip_address(text), allowed)
    except ValueError:
        return False
