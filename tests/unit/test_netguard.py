"""Which addresses may be dialled."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.netguard import AddressClass, classify, guard, is_numeric, read

REFUSED = [
    ("0.0.0.0", AddressClass.UNSPECIFIED),
    ("0.1.2.3", AddressClass.UNSPECIFIED),
    ("10.0.0.1", AddressClass.PRIVATE),
    ("100.64.0.1", AddressClass.CGNAT),
    ("127.0.0.1", AddressClass.LOOPBACK),
    ("127.255.255.254", AddressClass.LOOPBACK),
    ("169.254.1.1", AddressClass.LINK_LOCAL),
    ("169.254.169.254", AddressClass.METADATA),
    ("169.254.170.2", AddressClass.METADATA),
    ("100.100.100.200", AddressClass.METADATA),
    ("168.63.129.16", AddressClass.METADATA),
    ("172.16.0.1", AddressClass.PRIVATE),
    ("172.31.255.255", AddressClass.PRIVATE),
    ("192.168.1.1", AddressClass.PRIVATE),
    ("192.0.0.8", AddressClass.RESERVED),
    ("192.0.0.192", AddressClass.METADATA),
    ("192.0.2.1", AddressClass.RESERVED),
    ("192.88.99.1", AddressClass.EMBEDDED_V4),
    ("198.18.0.1", AddressClass.RESERVED),
    ("203.0.113.9", AddressClass.RESERVED),
    ("224.0.0.1", AddressClass.MULTICAST),
    ("240.0.0.1", AddressClass.RESERVED),
    ("255.255.255.255", AddressClass.BROADCAST),
    ("::", AddressClass.UNSPECIFIED),
    ("::1", AddressClass.LOOPBACK),
    ("::7f00:1", AddressClass.EMBEDDED_V4),
    ("::ffff:127.0.0.1", AddressClass.EMBEDDED_V4),
    ("::ffff:8.8.8.8", AddressClass.EMBEDDED_V4),
    ("::ffff:0:10.0.0.1", AddressClass.EMBEDDED_V4),
    ("64:ff9b::a9fe:a9fe", AddressClass.EMBEDDED_V4),
    ("64:ff9b:1::1", AddressClass.EMBEDDED_V4),
    ("2002:7f00:1::", AddressClass.EMBEDDED_V4),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", AddressClass.EMBEDDED_V4),
    ("2a00:1450:4001:81b::5efe:7f00:1", AddressClass.PUBLIC),
    ("2a00:1450:4001:81b:0:5efe:7f00:1", AddressClass.EMBEDDED_V4),
    ("2001:2::1", AddressClass.RESERVED),
    ("2001:db8::1", AddressClass.RESERVED),
    ("3fff::1", AddressClass.RESERVED),
    ("5f00::1", AddressClass.RESERVED),
    ("100::1", AddressClass.RESERVED),
    ("fc00::1", AddressClass.PRIVATE),
    ("fd00:ec2::254", AddressClass.METADATA),
    ("fe80::1", AddressClass.LINK_LOCAL),
    ("fec0::1", AddressClass.PRIVATE),
    ("ff02::1", AddressClass.MULTICAST),
    ("fe80::1%eth0", AddressClass.UNREADABLE),
    ("2606:4700::1111%1", AddressClass.UNREADABLE),
]
UNREADABLE = [
    "0x7f.1", "0x7f000001", "0177.0.0.1", "2130706433", "127.1", "127.0.1", "127.0.0.1.", "[::1]", "127.0.0.01",
    " 127.0.0.1", "127.0.0.1 ", "1\u0662\u06637.0.0.1", "::ffff:0x7f.1", "", "localhost", "127.0.0.1\n", "1.1.1.1/32",
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), [(t, k) for t, k in REFUSED if k is not AddressClass.PUBLIC])
def test_special_addresses_are_refused_by_class(text: str, kind: AddressClass) -> None:
    """Each special-purpose address is refused and named for what it is."""
    assert guard().refusal(text) is kind


def test_a_scoped_address_has_no_class_of_its_own() -> None:
    """Its zone means something on one machine only."""
    assert classify(ipaddress.ip_address("2606:4700::1111%1")) is AddressClass.UNREADABLE


@pytest.mark.parametrize("text", UNREADABLE)
def test_tricky_spellings_are_no_addresses(text: str) -> None:
    """Octal, hexadecimal, short, decorated and foreign-digit forms are not read at all."""
    assert read(text) is None
    assert guard().refusal(text) is AddressClass.UNREADABLE


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"])
def test_public_addresses_are_admitted(text: str) -> None:
    """An ordinary address needs no allow-list."""
    assert guard().refusal(text) is None


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "a.0x1", "a.b.017", "0x", "1.2.3.4.", "foo.0XfF"])
def test_hosts_that_parsers_take_for_numbers_are_known(host: str) -> None:
    """A name whose last label is a number may be an address to somebody."""
    assert is_numeric(host)


@pytest.mark.parametrize("host", ["localhost", "a1.example", "0x7f.example", "example.0xzz", "ff", "x.y.", "dead.beef"])
def test_ordinary_names_are_no_numbers(host: str) -> None:
    """Digits elsewhere than in the last label mean nothing."""
    assert not is_numeric(host)


def test_an_operator_admits_exact_networks_only() -> None:
    """The allow-list opens what it names, and nothing of the other family."""
    laptop = guard(("127.0.0.0/8", "::1/128"))
    assert laptop.refusal("127.0.0.1") is None
    assert laptop.refusal("::1") is None
    assert laptop.refusal("10.0.0.1") is AddressClass.PRIVATE
    assert laptop.refusal("::ffff:127.0.0.1") is AddressClass.EMBEDDED_V4


def test_a_wide_network_does_not_open_metadata() -> None:
    """Only naming the very address admits a metadata address."""
    assert guard(("169.254.0.0/16", "0.0.0.0/0")).refusal("169.254.169.254") is AddressClass.METADATA
    assert guard(("169.254.169.254/32",)).refusal("169.254.169.254") is None


def test_a_network_with_host_bits_is_an_operators_mistake() -> None:
    """``10.0.0.1/8`` is ambiguous and refused when the settings are read."""
    with pytest.raises(ValueError, match="host bits"):
        guard(("10.0.0.1/8",))


@given(st.ip_addresses(v=4))
def test_what_python_calls_private_is_never_public(address: ipaddress.IPv4Address) -> None:
    """Our IPv4 table refuses at least what the standard library calls not global."""
    if not address.is_global or address.is_multicast:
        assert guard().refusal(str(address)) is not None


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "::{}", "64:ff9b::{}", "::ffff:0:{}"]))
def test_an_ipv4_address_inside_an_ipv6_one_is_refused(address: ipaddress.IPv4Address, form: str) -> None:
    """Whatever the IPv4 address, its IPv6 wrappings are not dialled."""
    assert guard().refusal(form.format(address)) is not None


@given(st.text(max_size=40))
def test_any_text_has_an_answer(text: str) -> None:
    """Nothing raises, and only plain addresses are admitted."""
    if guard().refusal(text) is None:
        ipaddress.ip_address(text)
    assert is_numeric(text) in {True, False}
