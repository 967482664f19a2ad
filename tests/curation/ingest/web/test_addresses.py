"""Which addresses are asked: those of the public internet alone."""

import asyncio
import ipaddress
import socket
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import FakeResolver, answer, serving

from curation.ingest.web.addresses import (
    CheckedResolver,
    ForbiddenAddressError,
    checked_socket,
    is_allowed,
    is_private_name,
    parse_networks,
)
from curation.ingest.web.download import Downloads, download
from curation.ingest.web.download_config import DownloadConfig

# fmt: off
FORBIDDEN = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.255",
    "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::8.8.8.8",
    "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
]
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1",
    "::ffff:8.8.8.8",
]
# Ways to say "this machine"; each is tried with the ports at which somebody listens.
DISGUISES = [
    "127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001",
    "0177.0.0.1", "127.1", "user:pw@127.0.0.1", "example.org@127.0.0.1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "a\\@127.0.0.1",
    "127.0.0.1.nip.io", "[::]", "[::127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "①②⑦.⓪.⓪.①", "127.0.0.1.",
    "localhost.", "127。0。0。1", "rebound.example",
]
# fmt: on


@pytest.mark.parametrize("text", FORBIDDEN)
def test_an_address_that_is_not_public(text: str):
    assert not is_allowed(ipaddress.ip_address(text), ())


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address(text: str):
    assert is_allowed(ipaddress.ip_address(text), ())


@settings(deadline=None, max_examples=50)
@given(st.ip_addresses(v=4))
def test_python_calls_global_whatever_we_allow(address: ipaddress.IPv4Address):
    if is_allowed(address, ()):
        assert address.is_global
        assert not address.is_private


@settings(deadline=None, max_examples=50)
@given(st.ip_addresses(v=4))
def test_an_address_in_another_dress_is_no_better(address: ipaddress.IPv4Address):
    mapped = ipaddress.ip_address(f"::ffff:{address}")
    assert is_allowed(mapped, ()) == is_allowed(address, ())
    for dress in (f"64:ff9b::{address}", str(ipaddress.ip_address((0x2002 << 112) | int(address) << 80))):
        assert not is_allowed(ipaddress.ip_address(dress), ())
        everything = parse_networks(["::/0"])
        assert is_allowed(ipaddress.ip_address(dress), everything) == is_allowed(address, ())


def test_what_the_config_names_is_allowed():
    allowed = parse_networks(["10.1.0.0/16", "fd00::/8"])
    assert is_allowed(ipaddress.ip_address("10.1.2.3"), allowed)
    assert is_allowed(ipaddress.ip_address("::ffff:10.1.2.3"), allowed)
    assert is_allowed(ipaddress.ip_address("fd12::1"), allowed)
    assert not is_allowed(ipaddress.ip_address("10.2.0.1"), allowed)
    assert not is_allowed(ipaddress.ip_address("127.0.0.1"), allowed)


def test_names_of_the_own_network():
    for name in ("localhost", "nas", "metadata.google.internal", "printer.local.", "a.b.LOCALHOST"):
        assert is_private_name(name)
    for name in ("example.org", "internal.example.org", "local.de"):
        assert not is_private_name(name)


def test_a_resolver_gives_out_allowed_addresses_alone():
    names = {"mixed.example": ["10.0.0.1", "8.8.8.8"], "bad.example": ["169.254.169.254"]}
    resolver = CheckedResolver(FakeResolver(names), ())
    assert [r["host"] for r in asyncio.run(resolver.resolve("mixed.example", 80))] == ["8.8.8.8"]
    with pytest.raises(ForbiddenAddressError):
        asyncio.run(resolver.resolve("bad.example", 80))


def test_no_socket_is_made_for_a_forbidden_address():
    """The last look: whatever the resolver said, and whatever the name meant a moment ago."""
    make = checked_socket(parse_networks(["127.0.0.0/8"]))
    make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))).close()
    for address in ("10.0.0.1", "not an address"):
        with pytest.raises(ForbiddenAddressError):
            make((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 80)))


def _listen(address: str, hits: list[str]) -> socket.socket:
    listener = socket.create_server(
        (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
    )

    def accept() -> None:
        try:
            while True:
                connection, _ = listener.accept()
                hits.append(address)
                connection.close()
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    return listener


def _ssrf_urls(shared_dir: Path, ports: list[int]) -> list[str]:
    """The forms of the bad set, and each of them with a port at which somebody listens."""
    lines = (shared_dir / "badset" / "url" / "ssrf.txt").read_text(encoding="utf-8").split("\n")
    lines = [line for line in lines if line]
    table = pq.ParquetFile(shared_dir / "badset" / "parquet" / "ssrf_urls.parquet").read()
    assert lines == table["url"].to_pylist()
    return lines + [f"http://{host}:{port}/x.jpg" for host in DISGUISES for port in ports]


def test_no_form_of_the_bad_set_reaches_a_listener(shared_dir: Path, tmp_path: Path):
    hits: list[str] = []
    listeners = [_listen("127.0.0.1", hits), _listen("::1", hits)]
    ports = [listener.getsockname()[1] for listener in listeners]
    resolver = FakeResolver({"metadata.google.internal": ["169.254.169.254"]})  # and all others: 127.0.0.1
    config = DownloadConfig(num_retries=0, connect_s=1.0)
    urls = _ssrf_urls(shared_dir, ports)
    try:
        found = list(download(urls, config, Downloads(tmp_path, resolver=resolver)))
    finally:
        for listener in listeners:
            listener.close()
    assert not hits
    assert {fetched.reason for fetched in found} == {"bad_url", "forbidden_address"}
    assert all(fetched.data is None for fetched in found)


class _Rebinding(FakeResolver):
    """A name that is public when it is first looked up, and means this machine ever after."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC):
        self.addresses = {host: ["127.0.0.2"] if not self.asked else ["127.0.0.1"]}
        return await super().resolve(host, port, family)


def test_a_name_that_changes_its_meaning(tmp_path: Path):
    """127.0.0.2 stands for the public internet here."""
    hits: list[str] = []
    with _listen("127.0.0.1", hits) as listener, serving("127.0.0.2") as server:
        location = f"http://x.example:{listener.getsockname()[1]}/"
        server.routes = {"/": answer(b"", 302, {"Location": location, "Connection": "close"})}
        config = DownloadConfig(num_retries=0, allow_private=("127.0.0.2/32",), honour_robots=False)
        resolver = _Rebinding()
        found = list(download([server.url("/", "x.example")], config, Downloads(tmp_path, resolver=resolver)))
    assert len(resolver.asked) == 2
    assert [request.path for request in server.requests] == ["/"]
    assert [fetched.reason for fetched in found] == ["forbidden_address"]
    assert not hits


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/", "http://[::1]:{port}/", "http://inner.example:{port}/"]
)
def test_a_redirect_to_this_machine(tmp_path: Path, target: str):
    hits: list[str] = []
    with _listen("127.0.0.1", hits) as listener, serving("127.0.0.2") as server:
        server.routes = {"/": answer(b"", 302, {"Location": target.format(port=listener.getsockname()[1])})}
        # The server itself is let through by its address; what it redirects to is not.
        resolver = FakeResolver({"out.example": ["127.0.0.2"], "inner.example": ["127.0.0.1"]})
        config = DownloadConfig(num_retries=0, allow_private=("127.0.0.2/32",), honour_robots=False)
        urls = [server.url("/", "out.example")]
        found = list(download(urls, config, Downloads(tmp_path, resolver=resolver)))
    assert [fetched.reason for fetched in found] == ["forbidden_address"]
    assert not hits
    assert [request.path for request in server.requests] == ["/"]
