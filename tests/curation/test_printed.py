"""What text may show: no credentials, and nothing that a terminal obeys."""

import pickle
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.ingest.problems import Problem
from curation.printed import redact, redact_link, redact_url, redact_value, redacted, visible

# A URL, and how it may be shown.
URLS = [
    ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
    ("s3://key:sec/ret@bucket/x", "s3://***@bucket/x"),
    ("s3://key:sec/r/et@bucket/x/y", "s3://***@bucket/x/y"),
    ("s3://key:12/secret@bucket/x", "s3://***@bucket/x"),
    ("s3://key:se?cret@bucket/x", "s3://***@bucket/x"),
    ("s3://k@y:sec/ret@bucket/x", "s3://***@bucket/x"),
    ("https://user:sec/ret@host/x?w=1", "https://***@host/x?w=1"),
    ("https://token@host/x", "https://***@host/x"),
    ("precomputed:s3://key:secret@b/x.parquet", "precomputed:s3://***@b/x.parquet"),
    ("abfs://key:secret@account.dfs.core.windows.net/x", "abfs://***@account.dfs.core.windows.net/x"),
    ("az://c/x?sv=2022&sig=secret%2Fa%3D&se=1", "az://c/x?sv=2022&sig=***&se=1"),
    ("https://h/x?X-Amz-Credential=secret&X-Amz-Signature=secret", "https://h/x?X-Amz-Credential=***&X-Amz-Signature=***"),
    ("https://h/x?w=3&X-Goog-Signature=secret", "https://h/x?w=3&X-Goog-Signature=***"),
    ("https://h/x?GoogleAccessId=secret&Expires=1&Signature=secret", "https://h/x?GoogleAccessId=***&Expires=1&Signature=***"),
    ("https://h/x?AWSAccessKeyId=secret&id=7", "https://h/x?AWSAccessKeyId=***&id=7"),
    ("https://h/x?Policy=secret&Key-Pair-Id=secret", "https://h/x?Policy=***&Key-Pair-Id=***"),
    ("https://h/x?access_token=secret#id_token=secret", "https://h/x?access_token=***#id_token=***"),
    ("https://h/x;jsessionid=secret;w=1", "https://h/x;jsessionid=***;w=1"),
    ("https://h/x?api%5Fkey=secret", "https://h/x?api%5Fkey=***"),
    ("https://h/x?url=" + quote("https://o/y?sig=secret", safe=""), "https://h/x?url=***"),
    ("https://h/x?a=b%26sig=secret", "https://h/x?a=***"),
    ("https://h/x?w=1&a=b%2526X-Amz-Signature%253Dsecret", "https://h/x?w=1&a=***"),
    ("https://h/x?url=" + quote(quote("https://o/y?sig=secret", safe=""), safe=""), "https://h/x?url=***"),
    ("https://h/x?url=" + quote(quote("ftp://u:secret@o/y", safe=""), safe=""), "https://h/x?url=***"),
    ("https://h/x?a=" + "%25" * 9 + "25" * 9 + "41", "https://h/x?a=***"),
    ("https://h/x?u=" + "a://?u=" * 2000 + "?sig=secret", "https://h/x?u=***"),
    ("https://h/x?hdnts=exp=1~acl=/*~hmac=secret", "https://h/x?hdnts=***"),
    ("https://h/x?hdnea=st=1~exp=2~hmac=secret&w=3", "https://h/x?hdnea=***&w=3"),
    ("https://h/x?t=exp%3D1~hmac%3Dsecret", "https://h/x?t=***"),
    ("https://h/exp=1~acl=%2F*~hmac=secret/a/b.jpg", "https://h/exp=1~acl=%2F*~hmac=***/a/b.jpg"),
    ("https://h/x?oauth_sig=secret&w=1", "https://h/x?oauth_sig=***&w=1"),
    ("https://h/x?verify=1484063787-secret", "https://h/x?verify=***"),
    ("https://archive/2024/http://u:secret@h/x", "https://archive/2024/http://***@h/x"),
    ("http://key:123456/secret@h/x", "http://***@h/x"),
    ("sftp://me:secret@host:22/data/x@y", "sftp://***@host:22/data/x@y"),
    ("https://h/x?password=sec ret", "https://h/x?password=***"),
    ("https://h/x?auth_key=17-0-0-secret&w=1", "https://h/x?auth_key=***&w=1"),
    ("https://h/x?hash=x&rlkey=secret", "https://h/x?hash=x&rlkey=***"),
    ("https://h/x?PHPSESSID=secret&sessid=secret&id=5", "https://h/x?PHPSESSID=***&sessid=***&id=5"),
    ("https://h/x?md5=secret&expires=17", "https://h/x?md5=***&expires=17"),
    ("https://h/x?e=17&st=secret", "https://h/x?e=17&st=***"),
    ("https://cdn/x?ex=1&is=2&hm=0secret", "https://cdn/x?ex=1&is=2&hm=***"),
    ("https://cdn/x?_nc_cat=1&oh=00_secret&oe=65AB", "https://cdn/x?_nc_cat=1&oh=***&oe=65AB"),
    ("https://h/x?subscription-key=secret&pass=secret&pw=secret", "https://h/x?subscription-key=***&pass=***&pw=***"),
    ("https://h/x?authkey=secret&auth_sig=secret&lsig=secret", "https://h/x?authkey=***&auth_sig=***&lsig=***"),
    ("https://h/x?sid=secret&bearer=secret&signed=secret", "https://h/x?sid=***&bearer=***&signed=***"),
    ("https://h/x?resourcekey=0-secret&cred=secret", "https://h/x?resourcekey=***&cred=***"),
    ("https://h/x?sig=se;secret&w=1", "https://h/x?sig=***&w=1"),
    ("https://h/x?sig=se#secret", "https://h/x?sig=***"),
    ("https://h/x?w=1;sig=se;secret;h=2#top", "https://h/x?w=1;sig=***;h=2#top"),
    ("https://h/#/route?sig=secret", "https://h/#/route?sig=***"),
    ("https://h/x?url=" + quote("https://o/y?md5=secret&expires=1", safe=""), "https://h/x?url=***"),
    ("http:/u:secret@h/x.tar", "http:/***@h/x.tar"),
    ("https:////u:secret@h/x", "https:////***@h/x"),
    ("https:\\\\u:secret@h/x?sig=secret", "https:\\\\***@h/x?sig=***"),
    ("s3:/key:sec/ret@bucket/x", "s3:/***@bucket/x"),
    ("precomputed:http:/u:secret@h/x.parquet", "precomputed:http:/***@h/x.parquet"),
    ("//u:secret@h/x?u=http://o/y", "//***@h/x?u=http://o/y"),
    ("simplecache::https://u:secret@h/x", "simplecache::https://***@h/x"),
    ("zip://in::https:/u:secret@h/x", "zip://***@h/x"),
    ("https://archive/2024/http:/u:secret@h/x", "https://archive/2024/http:/***@h/x"),
]  # fmt: skip
PLAIN = [
    "abfs://data@account.dfs.core.windows.net/web",
    "az://data@account/web",
    "s3://bucket/x@y",
    "s3://bucket/key=2024/x.tar",
    "http://host:8080/x@y",
    "http://[::1]:8080/x@y",
    "hdfs://namenode:8020/user/a@b/x.tar",
    "sftp://host:22/data/me@x",
    "webhdfs://host:50070/a@b",
    "https://web.archive.org/web/2024/http://h/x@y",
    "https://h/x?url=https%3A%2F%2Fo%2Fy%3Fw%3D1&t=50%25",
    "https://h/x?w=300&id=7&v=2#top",
    "https://h/x?token=",
    "https://h/x?id=5&size=big&monkey=2&design=flat&author=me&passage=3&keyword=cat&state=on&hashtag=x",
    "https://h/x?md5=d41d8cd98f00b204e9800998ecf8427e&w=2",
    "https://h/x?ow=100&oh=200&hm=12px&sid=1234&signed=true&hash=7#md5",
    "//host/share@x/y",
    "logs:/data/me@x",
    "C:/data/me@x",
    "precomputed:/data/me@x.parquet",
    "/plain@path?token=1",
    "a:b@c",
    "",
]


@pytest.mark.parametrize(("url", "shown"), URLS)
def test_credentials_are_hidden(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert redact_url(shown) == shown
    if " " not in url:
        assert redact(f"It failed: <{url}>, twice ({url})") == f"It failed: <{shown}>, twice ({shown})"


@pytest.mark.parametrize("url", PLAIN)
def test_what_is_no_credential_stays(url: str) -> None:
    assert redact_url(url) == url
    assert redact(f"see {url} there") == f"see {url} there"


# What stands where a list has its URLs.
LINKS = [
    ("//u:secret@host/a", "//***@host/a"),
    ("//secret@host/a", "//***@host/a"),
    ("host/a?sig=secret", "host/a?sig=***"),
    ("host:80/a?id=5&size=big", "host:80/a?id=5&size=big"),
    ("u:secret@host/a?u=http://o/b", "***@host/a?u=http://o/b"),
    ("/a/b?X-Amz-Signature=secret#top", "/a/b?X-Amz-Signature=***"),
    ("ht!tp://u:secret@h", "***@h"),
    ("http:u:secret@h/x", "http:***@h/x"),
    ("HTTPS://u:secret@h/x", "HTTPS://***@h/x"),
    ("cats and dogs/1.jpg", "cats and dogs/1.jpg"),
    ("", ""),
]


@pytest.mark.parametrize(("link", "shown"), LINKS)
def test_links_hide_them_without_a_scheme(link: str, shown: str) -> None:
    assert redact_link(link) == shown
    assert redact_link(shown) == shown


@pytest.mark.parametrize(("url", "shown"), URLS)
def test_a_link_is_shown_as_a_url_is(url: str, shown: str) -> None:
    if re.match(r"[a-z]+:/|//", url):
        assert redact_link(url) == shown
    if " " not in url:
        assert redact_value(url) == shown


def test_names_in_plain_data_hide_them_too() -> None:
    assert redacted({"https://u:secret@h/": ["//u:secret@h/a"]}) == {"https://***@h/": ["//***@h/a"]}


def test_of_values_of_tables_only_whole_urls_are_changed() -> None:
    assert redact_value(" HTTP://u:secret@h/x?w=1\n") == " HTTP://***@h/x?w=1\n"
    for caption in (
        "a cat, see http://u:v@h/x?sig=1",
        "http://h/x?code=1 is a page",
        "a@b?sig=1",
        "12://u:v@h",
    ):
        assert redact_value(caption) == caption


@given(st.text(st.characters(exclude_characters="@"), min_size=3).map(lambda t: f"Zq{t}qZ"))
def test_no_password_survives(password: str) -> None:
    shown = redact_url(f"s3://key:{password}@bucket/x")
    assert shown == "s3://***@bucket/x"


@given(st.text(max_size=20))
def test_hiding_twice_is_hiding_once(rest: str) -> None:
    for scheme in ("s3://", "abfs://", "https://", "https:/", "//", "x::https://"):
        shown = redact_url(f"{scheme}{rest}")
        assert redact_url(shown) == shown
        assert redact_link(redact_link(f"{scheme}{rest}")) == redact_link(f"{scheme}{rest}")
    assert redact_link(redact_link(rest)) == redact_link(rest)


def test_errors_and_problems_hide_them() -> None:
    error = ConfigError(
        "No s3://k:secret@b/x", got=OSError("https://h/?sig=secret"), remedy="Not az://u:secret@c"
    )
    assert "secret" not in str(error)
    assert "secret" not in str(pickle.loads(pickle.dumps(error)))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    problem = Problem("s3://k:secret@b/x", "unreadable", "no answer from https://h/?sig=secret")
    assert (problem.path, problem.detail) == ("s3://***@b/x", "no answer from https://h/?sig=***")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\u001b[2J\\u001b]0;title\\u0007"),
        ("\x9b31m", "\\u009b31m"),
        ("a\nlvd: done\r", "a\\u000alvd: done\\u000d"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("\u2028", "\\u2028"),
        ("\udcff.jpg", "\\udcff.jpg"),
        ("čeština 猫 🐱", "čeština 猫 🐱"),
    ],
)
def test_control_characters_are_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_an_error_keeps_its_lines_and_nothing_else() -> None:
    assert str(ConfigError("one\n\ttwo\x1b[1m")) == "one\n\ttwo\\u001b[1m."
