"""What a line of a list asks for, or why it is never asked for."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.ingest.web.addresses import parse_networks
from curation.ingest.web.blocked_domains import is_blocked, read_blocked
from curation.ingest.web.download_config import MAX_URL_CHARS
from curation.ingest.web.web_url import RefusedUrlError, read_url


def read(text: str, allowed: tuple[str, ...] = (), blocked: frozenset[str] = frozenset()) -> str:
    try:
        return str(read_url(text, allowed=parse_networks(allowed), blocked=blocked))
    except RefusedUrlError as error:
        return error.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://example.org/a.jpg", "http://example.org/a.jpg"),
        ("  https://example.org/a.jpg#part ", "https://example.org/a.jpg"),
        ("HTTP://EXAMPLE.org:8080/A%20b.jpg?x=1%2C2", "http://example.org:8080/A%20b.jpg?x=1%2C2"),
        ("http://example.org/a b é.jpg", "http://example.org/a%20b%20%C3%A9.jpg"),
        ("http://bücher.example/a.jpg", "http://xn--bcher-kva.example/a.jpg"),
        ("http://8.8.8.8/a.jpg", "http://8.8.8.8/a.jpg"),
        ("http://[2606:4700::1111]/a.jpg", "http://[2606:4700::1111]/a.jpg"),
        ("http://under_score.example/a.jpg", "http://under_score.example/a.jpg"),
        ("http://example.org./a.jpg", "http://example.org./a.jpg"),
        ("", "bad_url"),
        ("nan", "bad_url"),
        ("http://a/\x00x.jpg", "bad_url"),
        ("http://a/b.jpg\r\nX-Injected: 1", "bad_url"),
        ("http://example.org/%0d%0aX: 1", "bad_url"),
        ("http://example.org:0/a.jpg", "bad_url"),
        ("http://example.org:port/a.jpg", "bad_url"),
        ("http://exa mple.org/a.jpg", "bad_url"),
        ("http://" + "a" * 64 + ".example/a.jpg", "bad_url"),
        ("http://example.org/" + "x" * MAX_URL_CHARS, "bad_url"),
        ("http://example.org/a/../b.jpg", "http://example.org/b.jpg"),
        ("http://example.org", "http://example.org/"),
        ("http://example.org?x=a b", "http://example.org/?x=a%20b"),
        ("http://xn--/a.jpg", "bad_url"),
        ("http://[::1/a.jpg", "bad_url"),
        ("http:example.org/a.jpg", "bad_url"),
        ("http:///a.jpg", "bad_url"),
        ("http://1.2.3/a.jpg", "bad_url"),
        ("http://example.0x7f/a.jpg", "bad_url"),
        ("http://nas/a.jpg", "forbidden_address"),
        ("http://127.0.0.1/a.jpg", "forbidden_address"),
    ],
)
def test_a_line_of_a_list(text: str, expected: str):
    assert read(text) == expected


def test_networks_and_names_that_the_config_allows():
    assert read("http://10.1.2.3/a.jpg", ("10.0.0.0/8",)) == "http://10.1.2.3/a.jpg"
    assert read("http://nas/a.jpg", ("10.0.0.0/8",)) == "http://nas/a.jpg"
    assert read("http://192.168.0.1/a.jpg", ("10.0.0.0/8",)) == "forbidden_address"


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60))
@example("]@")
def test_no_text_is_more_than_a_reason(text: str):
    for prefix in ("", "http://", "http://example.org/", "http://[", "https://xn--"):
        found = read(prefix + text)
        assert found in ("bad_url", "forbidden_address") or found.startswith(("http://", "https://"))
        assert not set(found) & set("\r\n\0\t\\")


def test_blocked_domains(tmp_path):
    plain, hosts = tmp_path / "domains", tmp_path / "hosts"
    text = "\ufeffEvil.example  # why\n*.ads.example\n\n# nothing\nbücher.example\n"
    plain.write_text(text, encoding="utf-8")
    hosts.write_text("0.0.0.0 tracker.example\n127.0.0.1 localhost\n")
    blocked, digest = read_blocked([str(plain), str(hosts)])
    assert blocked == {"evil.example", "ads.example", "tracker.example", "localhost", "xn--bcher-kva.example"}
    assert digest == read_blocked([str(hosts), str(plain)])[1]
    assert digest != read_blocked([str(plain)])[1]
    assert is_blocked("a.b.EVIL.example.", blocked)
    assert not is_blocked("notevil.example", blocked)
    assert not is_blocked("example", blocked)
    assert read("http://x.bücher.example/", blocked=blocked) == "blocked_domain"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_blocked_domains_in_any_unicode(tmp_path: Path, encoding: str):
    path = tmp_path / "blocked.txt"
    path.write_bytes("evil.example\r\nmüll.example\r\n".encode(encoding))
    assert read_blocked([str(path)])[0] == {"evil.example", "xn--mll-hoa.example"}


@pytest.mark.parametrize("data", [b"caf\xe9.example\n", "a..ü.example\n".encode(), b"\xff\xfeh"])
def test_blocked_domains_that_cannot_be_read_are_named(tmp_path: Path, data: bytes):
    path = tmp_path / "blocked.txt"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"blocked\.txt"):
        read_blocked([str(path)])
