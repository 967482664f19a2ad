"""robots.txt as RFC 9309 has it, and the headers by which a site opts out."""

import random
import re
import time
from urllib.robotparser import RobotFileParser

import pytest
from multidict import CIMultiDict

from curation.ingest.web.opt_out import opts_out
from curation.ingest.web.robots import MAX_ROBOTS_BYTES, Rules, may_ask, parse_robots, product_token

# RFC 9309, §5.1 and §5.2.
SIMPLE = b"""User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""
LONGEST = b"User-Agent: foobot\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n"


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("otherbot", "/a.gif", False),
        ("otherbot", "/a.gif?x", True),
        ("otherbot", "/example/a.html", False),
        ("otherbot", "/publications/x", True),
        ("foobot", "/x", False),
        ("foobot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("foobot", "/robots.txt", True),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("bazbot", "/a.gif", True),
        ("quxbot", "/example/", True),
    ],
)
def test_the_example_of_the_rfc(agent: str, path: str, allowed: bool):
    assert may_ask(parse_robots(SIMPLE, agent), path) == allowed


def test_the_longest_match_decides():
    rules = parse_robots(LONGEST, "foobot")
    assert may_ask(rules, "/example/page/allowed.gif")
    assert not may_ask(rules, "/example/page/disallowed.gif")
    both = parse_robots(b"user-agent: *\nallow: /a\ndisallow: /a", "x")
    assert may_ask(both, "/a")


@pytest.mark.parametrize(
    ("rule", "path", "matches"),
    [
        ("/foo/bar?baz=quz", "/foo/bar?baz=quz", True),
        ("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https://foo.bar", True),
        ("/foo/bar/ツ", "/foo/bar/%E3%83%84", True),
        ("/foo/bar/%E3%83%84", "/foo/bar/%e3%83%84", True),
        ("/foo/bar/%62%61%7A", "/foo/bar/baz", True),
        ("/a%2fb", "/a/b", False),
        ("/a*c", "/abbbc", True),
        ("/a*c$", "/abc/", False),
        ("/a*c$", "/acc", True),
        ("/*/*/x", "/1/2/x", True),
        ("/ab$", "/abc", False),
        ("*", "/anything", True),
        ("/a**b", "/ab", True),
    ],
)
def test_patterns(rule: str, path: str, matches: bool):
    rules = parse_robots(f"User-agent: *\nDisallow: {rule}\n".encode(), "x")
    assert may_ask(rules, path) != matches


def test_groups_of_one_crawler_count_together_and_odd_lines_do_not():
    text = b"\xef\xbb\xbfUSER-AGENT : LvD-Bot/2.0 (x)\rdisallow : /a # why\nnonsense\nSitemap: http://x/\n"
    text += b"User-agent: *\nDisallow: /\nUser-agent: lvd-bot\nDisallow: /b\nDisallow:\n\xff\xfe"
    rules = parse_robots(text, "lvd-bot")
    assert [may_ask(rules, path) for path in ("/a", "/b", "/c")] == [False, False, True]
    assert not may_ask(parse_robots(text, "other"), "/c")


def test_only_so_much_of_a_file_is_read():
    text = b"#" * (MAX_ROBOTS_BYTES - 30) + b"\nUser-agent: *\nDisallow: /a\nDisallow: /b\n"
    assert len(parse_robots(text, "x")) <= 1


def test_a_pattern_made_to_take_long():
    rules = parse_robots(b"User-agent: *\nDisallow: /" + b"a*" * 200 + b"b$\n", "x")
    start = time.monotonic()
    assert may_ask(rules, "/" + "a" * 4000)
    assert time.monotonic() - start < 0.5


def _by_regex(rules: list[tuple[str, bool]], path: str) -> bool:
    """RFC 9309, §2.2.2, said once more with regular expressions."""
    found = [(-1, True)]
    for pattern, allowed in rules:
        body = re.escape(pattern.removesuffix("$")).replace(r"\*", ".*")
        if re.match(body + ("$" if pattern.endswith("$") else ""), path):
            found.append((len(pattern), allowed))
    return max(found)[1]


def test_against_regular_expressions():
    rng = random.Random(0)
    for _ in range(500):
        rules = [
            ("/" + "".join(rng.choice("ab*/") for _ in range(rng.randrange(6))) + rng.choice(["", "", "$"]),
             rng.random() < 0.5)
            for _ in range(rng.randrange(1, 5))
        ]  # fmt: skip
        lines = "".join(f"{'Allow' if ok else 'Disallow'}: {pattern}\n" for pattern, ok in rules)
        parsed: Rules = parse_robots(f"User-agent: *\n{lines}".encode(), "x")
        path = "/" + "".join(rng.choice("ab/") for _ in range(rng.randrange(7)))
        assert may_ask(parsed, path) == _by_regex(rules, path), (rules, path)


def test_against_the_standard_library():
    """Where there are neither wildcards nor overlapping rules, Python's own parser says the same."""
    text = "User-agent: a\nDisallow: /x/\n\nUser-agent: *\nDisallow: /y/\nDisallow: /z\n"
    theirs = RobotFileParser()
    theirs.parse(text.splitlines())
    for agent in ("a", "b"):
        rules = parse_robots(text.encode(), agent)
        for path in ("/", "/x/1", "/y/1", "/z", "/zz", "/yy"):
            assert may_ask(rules, path) == theirs.can_fetch(agent, path)


def test_the_name_of_a_crawler():
    assert product_token("Lvd-Image_downloader/1.0 (+https://x)") == "lvd-image_downloader"
    assert product_token("/") == ""


@pytest.mark.parametrize(
    ("tags", "out"),
    [
        (["noai"], True),
        (["all"], False),
        (["nofollow, NoImageAI"], True),
        (["noindex"], True),
        (["noimageindex"], True),
        (["none"], True),
        (["noarchive", "noai"], True),
        (["otherbot: noindex"], False),
        (["lvd: noindex, nofollow"], True),
        (["LVD: nofollow, noai"], True),
        (["otherbot: noindex, lvd: noai"], True),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], True),
        (["max-image-preview: none"], False),
        (["max-image-preview:none"], False),
        (["MAX-IMAGE-PREVIEW : NONE, max-snippet:0, max-video-preview:-1"], False),
        (["lvd: max-image-preview:none"], False),
        (["max-image-preview:none, none"], True),
        (["max-image-preview:none, googlebot: noindex"], False),
        (["googlebot: noindex, lvd/1.0: noai"], True),
        (["unavailable_after: Saturday, 01-Jan-2000 00:00:00 GMT, noindex"], True),
        (["unavailable_after: 2000-01-01T00:00:00+01:00"], False),
        (["noarchive, nosnippet; NOINDEX"], True),
        (['"noindex"'], True),
        (["'noai', 'noimageai'"], True),
        (["nofollow noai"], True),
        (["none-such, none2"], False),
        (["*: noai"], True),
        ([], False),
        (["noaix"], False),
    ],
)
def test_tags(tags: list[str], out: bool):
    headers = CIMultiDict([("X-Robots-Tag", tag) for tag in tags])
    assert opts_out(headers, robots_tags=tags, product="lvd") == out


def test_the_reservation_of_rights():
    assert opts_out(CIMultiDict({"TDM-Reservation": "1"}), robots_tags=[], product="lvd")
    assert opts_out(CIMultiDict({"TDM-Reservation": '"1"'}), robots_tags=[], product="lvd")
    assert not opts_out(CIMultiDict({"TDM-Reservation": "0"}), robots_tags=[], product="lvd")
