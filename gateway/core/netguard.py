"""Which addresses the gateway may dial: an IP address is public, or it is refused.

Server-side request forgery lives on addresses that only the gateway's own machine or network can reach, and on the many
ways to write one. So this is a list of what may be dialled (IPv6: global unicast) and of what never may (IPv4: the
special-purpose registry), every form that carries an IPv4 address inside an IPv6 one is refused as a whole, and a host
that parsers could read as a number is no host name.

Nothing here resolves names: the caller resolves once, asks about every answer and dials exactly what was asked about.
"""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class AddressClass(StrEnum):
    """What an address is for. Only ``PUBLIC`` may be dialled without an operator's word."""

    PUBLIC = "public"
    METADATA = "metadata"
    UNSPECIFIED = "unspecified"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    LINK_LOCAL = "link_local"
    CGNAT = "cgnat"
    MULTICAST = "multicast"
    BROADCAST = "broadcast"
    EMBEDDED_V4 = "embedded_v4"
    RESERVED = "reserved"
    UNREADABLE = "unreadable"


# Cloud instances find credentials here; two of them lie in otherwise public or private space.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # most clouds
        "169.254.170.2",  # container credentials
        "169.254.170.23",  # pod credentials
        "100.100.100.200",
        "168.63.129.16",  # a public address that only exists inside one cloud
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
    )
)

_V4: tuple[tuple[IPv4Network, AddressClass], ...] = tuple(
    (IPv4Network(text), kind)
    for text, kind in (
        ("0.0.0.0/8", AddressClass.UNSPECIFIED),
        ("10.0.0.0/8", AddressClass.PRIVATE),
        ("100.64.0.0/10", AddressClass.CGNAT),
        ("127.0.0.0/8", AddressClass.LOOPBACK),
        ("169.254.0.0/16", AddressClass.LINK_LOCAL),
        ("172.16.0.0/12", AddressClass.PRIVATE),
        ("192.0.0.0/24", AddressClass.RESERVED),
        ("192.0.2.0/24", AddressClass.RESERVED),
        ("192.31.196.0/24", AddressClass.RESERVED),
        ("192.52.193.0/24", AddressClass.RESERVED),
        ("192.88.99.0/24", AddressClass.EMBEDDED_V4),  # 6to4 relays
        ("192.168.0.0/16", AddressClass.PRIVATE),
        ("192.175.48.0/24", AddressClass.RESERVED),
        ("198.18.0.0/15", AddressClass.RESERVED),
        ("198.51.100.0/24", AddressClass.RESERVED),
        ("203.0.113.0/24", AddressClass.RESERVED),
        ("224.0.0.0/4", AddressClass.MULTICAST),
        ("255.255.255.255/32", AddressClass.BROADCAST),
        ("240.0.0.0/4", AddressClass.RESERVED),
    )
)

_V6: tuple[tuple[IPv6Network, AddressClass], ...] = tuple(
    (IPv6Network(text), kind)
    for text, kind in (
        ("::/128", AddressClass.UNSPECIFIED),
        ("::1/128", AddressClass.LOOPBACK),
        ("::/96", AddressClass.EMBEDDED_V4),  # v4-compatible
        ("::ffff:0:0/96", AddressClass.EMBEDDED_V4),  # v4-mapped
        ("::ffff:0:0:0/96", AddressClass.EMBEDDED_V4),  # v4-translated
        ("64:ff9b::/96", AddressClass.EMBEDDED_V4),  # NAT64
        ("64:ff9b:1::/48", AddressClass.EMBEDDED_V4),  # NAT64, local use
        ("2001::/32", AddressClass.EMBEDDED_V4),  # Teredo
        ("2002::/16", AddressClass.EMBEDDED_V4),  # 6to4
        ("2001::/23", AddressClass.RESERVED),
        ("2001:db8::/32", AddressClass.RESERVED),
        ("3fff::/20", AddressClass.RESERVED),
        ("2620:4f:8000::/48", AddressClass.RESERVED),
        ("fc00::/7", AddressClass.PRIVATE),
        ("fe80::/10", AddressClass.LINK_LOCAL),
        ("fec0::/10", AddressClass.PRIVATE),
        ("ff00::/8", AddressClass.MULTICAST),
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_ISATAP = (0x00005EFE, 0x02005EFE)


def classify(address: Address) -> AddressClass:
    """The class of a parsed address; a scoped one (zone id) is ``UNREADABLE``."""
    if address in _METADATA:
        return AddressClass.METADATA
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _V4 if address in network), AddressClass.PUBLIC)
    if address.scope_id is not None:
        return AddressClass.UNREADABLE
    return next((kind for network, kind in _V6 if address in network), None) or _global(address)


def read(text: str) -> Address | None:
    """The address ``text`` writes in its one plain form, or None.

    Octal, hexadecimal, short and whole-number forms, trailing dots, brackets and zone ids are not read: resolvers and
    parsers disagree about them.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address


def is_numeric(host: str) -> bool:
    """Whether some parser would take the host name for an IPv4 address: its last label is a number (WHATWG URL)."""
    last = host.removesuffix(".").rpartition(".")[2].lower()
    digits = last.removeprefix("0x")
    return last.isdigit() or (digits != last and all(char in "0123456789abcdef" for char in digits))


@dataclass(frozen=True, slots=True)
class Guard:
    """What may be dialled: public addresses and the networks an operator named.

    A metadata address is admitted only where the operator named exactly that address: a wide private network in the
    allow-list must not open it.

    Attributes:
        allowed: networks beyond the public ones, e.g. loopback on a laptop.
    """

    allowed: tuple[Network, ...] = ()

    def refusal(self, text: str) -> AddressClass | None:
        """Why the address written as ``text`` may not be dialled, or None where it may."""
        address = read(text)
        if address is None:
            return AddressClass.UNREADABLE
        kind = classify(address)
        exact = kind is AddressClass.METADATA
        named = any(
            network.version == address.version and address in network and (not exact or network.num_addresses == 1)
            for network in self.allowed
        )
        return None if kind is AddressClass.PUBLIC or named else kind


def guard(networks: tuple[str, ...] = ()) -> Guard:
    """A guard from an operator's list of networks in CIDR form.

    Raises:
        ValueError: an entry is no network, or has host bits set.
    """
    return Guard(tuple(ipaddress.ip_network(text) for text in networks))


def _global(address: IPv6Address) -> AddressClass:
    if address not in _GLOBAL_UNICAST:
        return AddressClass.RESERVED
    # ISATAP carries an IPv4 address in the interface part of any prefix.
    return AddressClass.EMBEDDED_V4 if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP else AddressClass.PUBLIC
