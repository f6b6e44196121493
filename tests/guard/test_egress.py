from __future__ import annotations

import ipaddress
import itertools
import json
import random
import subprocess
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from gateway.guard.egress import Egress, UrlRefused, is_public, read_url

EGRESS = Egress()


def accepts(url: str, egress: Egress = EGRESS) -> bool:
    try:
        egress.check(url)
    except UrlRefused:
        return False
    return True


@pytest.mark.parametrize(
    "url",
    [
        "https://docs.example.com/public/guide",
        "https://api.example.net/v1?callback=http://127.0.0.1/",
        "https://169-254-169-254.example.com/",
        "http://93.184.216.34/",
        "HTTP://EXAMPLE.COM:8080",
        "http://example.com.",
        "http://example.com.:80/a",
        "https://xn--mnchen-3ya.de/straße?q=grüß#x",
        "https://[2606:4700::1111]/",
        "https://[2606:4700::1111]:8443?x",
        "https://a_b.example.com/@user:pw@x",
        "https://example.com#@localhost",
        "http://[64:ff9b::8.8.8.8]/",
        "http://1.2.3.4.example.com/",
        "http://0x7f.example.com/",
    ],
)
def test_public_urls_are_allowed(url: str) -> None:
    assert accepts(url)


@pytest.mark.parametrize(
    "url",
    [
        "", "http", "http:", "http://", "//example.com/", "http:/example.com", "http:example.com", "http:///example.com",
        "example.com", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)",
        "http://user@example.com/", "http://user:pw@example.com/", "http://@example.com", "http://example.com@127.0.0.1/",
        "http://example.com\\@127.0.0.1/", "http://127.0.0.1\\@example.com/", "http:\\\\example.com", "http://example.com\\",
        "http://exa\tmple.com/", "http://example.com/\n", " http://example.com/", "http://example.com/a b", "http://example.com\x00",
        "http://example.com/\u200b", "http://example.com/\ud800", "http://example.com/\x85", "http://example.com/\u2028x",
        "http://127.0.0.1/", "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/",
        "http://0177.0.0.1/", "http://0/", "http://0x/", "http://1.2.3.4.5/", "http://256.1.1.1/", "http://01.2.3.4/", "http://1.2.3/",
        "http://1.2.3.0x4/", "http://foo.0x1/", "http://foo.1/", "http://127.0.0.1./", "http://8.8.8.8.8.8.8.8/", "http://4294967295/",
        "http://①②⑦.⓪.⓪.①/", "http://\uff11\uff12\uff17.0.0.1/", "http://127。0。0。1/", "http://\uff45xample.com/", "http://münchen.de/",
        "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::127.0.0.1]/", "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/", "http://[fd00:ec2::254]/", "http://[2002:7f00:1::]/", "http://[64:ff9b::a9fe:a9fe]/",
        "http://[64:ff9b:1::1]/", "http://[2001:0:7f00:1::]/", "http://[2001:db8::1]/", "http://[ff02::1]/", "http://[1]/",
        "http://[::ffff:0:127.0.0.1]/", "http://[2606:4700::1111", "http://2606:4700::1111/", "http://[v1.x]/", "http://[3fff::1]/",
        "http://localhost/", "http://localhost./", "http://LOCALHOST/", "http://a.localhost/", "http://metadata/",
        "http://metadata.google.internal/", "http://printer.local/", "http://router.lan/", "http://1.0.0.127.in-addr.arpa/",
        "http://169.254.169.254/", "http://100.100.100.200/", "http://168.63.129.16/", "http://192.0.0.192/", "http://10.0.0.5/",
        "http://example%2ecom/", "http://%31%32%37.0.0.1/", "http://example..com/", "http://.example.com/", "http://example.com../",
        "http://-a.example.com/", "http://example.com:0/", "http://example.com:65536/", "http://example.com:/", "http://example.com:8 0/",
        "http://example.com:80:80/", "http://example.com;x/", "http://" + "a" * 64 + ".com/", "http://" + "a." * 70 + "com/",
        "http://example.com/" + "a" * 9000, "http://[::1]example.com/", "http://example.com[::1]/", "view-source:http://example.com/",
    ],
)  # fmt: skip
def test_everything_else_is_refused(url: str) -> None:
    assert not accepts(url)


def test_hosts_are_allowed_and_denied_by_pattern() -> None:
    egress = Egress(["https"], ["*.example.com", "8.8.*"], ["bad.*"])
    assert accepts("https://A.example.com./", egress)
    assert accepts("https://8.8.8.8/", egress)
    for url in (
        "http://a.example.com/",
        "https://example.com/",
        "https://bad.example.com/",
        "https://a.example.com.evil.net/",
    ):
        assert not accepts(url, egress)


def test_private_hosts_are_written_out() -> None:
    egress = Egress(private=["wiki.corp", "10.0.0.5", "localhost"])
    assert accepts("http://wiki.corp/", egress)
    assert accepts("http://10.0.0.5:81/", egress)
    assert accepts("http://localhost/", egress)
    assert not accepts("http://10.0.0.6/", egress)
    assert egress.must_resolve("http://wiki.corp/") is None
    assert egress.must_resolve("http://8.8.8.8/") is None
    assert egress.must_resolve("http://Example.com./x") == "example.com"


def test_reasons_do_not_quote_the_url() -> None:
    with pytest.raises(UrlRefused) as caught:
        read_url("http://hunter2@example.com/")
    assert "hunter2" not in str(caught.value)


def inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses that an IPv6 address carries, by offsets of the RFCs."""
    number = int(address)
    if address.version == 4:
        return []
    if number >> 32 in (0xFFFF, 0x64FF9B << 64):
        return [ipaddress.IPv4Address(number & 0xFFFFFFFF)]
    if number >> 112 == 0x2002:
        return [ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF)]
    if number >> 96 == 0x20010000:
        return [ipaddress.IPv4Address(number >> 64 & 0xFFFFFFFF), ipaddress.IPv4Address(~number & 0xFFFFFFFF)]
    return []


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), st.ip_addresses(network="64:ff9b::/96"), st.ip_addresses(network="2002::/16"),
                 st.ip_addresses(network="2001::/32"), st.ip_addresses(network="::ffff:0:0/96")))  # fmt: skip
def test_a_public_address_is_global_to_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(address):
        carried = inner(address)
        assert all(each.is_global and not each.is_multicast for each in carried or [address])


PIECES = (
    "http://", "https://", "HTTP://", "http:", "//", "/", "\\", "@", ":", "?", "#", ".", "..", "%", "%2e", "%31", "[", "]", "::", "::1", "::ffff:",
    "127.0.0.1", "127.1", "0x7f", "0177", "2130706433", "10.0.0.1", "8.8.8.8", "169.254.169.254", "localhost", "example.com", "a", "1", "0", "x",
    "xn--", "xn--a", "-", "_", "80", ":80", "①", "。", "\uff0e", "ⅷ", "ß", "\u00ad", "\u200d", "\t", "\n", " ", "\x00", "user", ";", "&", "=", ",", "!", "$", "*", "é",
    "2002:7f00:1::", "64:ff9b::", "0x", "com", ".com", "internal",
)  # fmt: skip


def candidates() -> list[str]:
    """Whatever falls together from pieces, most of it around a host; the same on every machine."""
    choose = random.Random(7)
    found = ["".join(choose.choices(PIECES, k=choose.randint(1, 9))) for _ in range(20_000)]
    found += [
        "http://" + "".join(choose.choices(PIECES, k=choose.randint(1, 6))) + choose.choice(("", "/", "?a", "#b"))
        for _ in range(60_000)
    ]
    hosts = ("".join(parts) for parts in itertools.product(("1", "0x1", "a", ".", "xn--", "-", "08"), repeat=5))
    return found + [f"http://{host}/" for host in hosts]


def check_host(host: str | None, url: str) -> None:
    """What another parser takes for the host leads to a public address, if to an address at all."""
    expected = read_url(url)
    assert host, url
    host = host.strip("[]").lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        assert expected.address is None, url
        assert host == expected.host, url
    else:
        assert address == expected.address, url
        assert is_public(address), url


def test_other_parsers_read_the_same_host(needs: Callable[[str, str], str]) -> None:
    accepted = [url for url in candidates() if accepts(url)]
    assert len(accepted) > 500
    for url in accepted:
        check_host(urlsplit(url).hostname, url)
        check_host(yarl.URL(url).raw_host, url)
    node = needs("node", "apt-get install nodejs")
    program = "let s='';process.stdin.on('data',d=>s+=d).on('end',()=>console.log(JSON.stringify(JSON.parse(s).map(u=>{try{return new URL(u).hostname}catch{return null}}))))"
    done = subprocess.run(
        [node, "-e", program], input=json.dumps(accepted), capture_output=True, text=True, timeout=60, check=True
    )
    for url, host in zip(accepted, json.loads(done.stdout), strict=True):
        # What Node refuses leads nowhere.
        if host is not None:
            check_host(host, url)
