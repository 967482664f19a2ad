"""Links to images out of pages, and out of the WARC and WAT files that hold them."""

import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from curation import storage
from curation.ingest.problems import Findings
from curation.ingest.sources import WarcSource
from curation.ingest.web.img_links import linked_images
from curation.ingest.web.img_tags import MAX_PAGE_LINKS, decode_page, largest_candidate, page_images

PAGE = "http://site.example/dir/page.html"


def links(text: str) -> list[tuple[str, str]]:
    return page_images(text, PAGE).links


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<img src="a.jpg" alt=" A  cat\n">', [("http://site.example/dir/a.jpg", "A cat")]),
        ("<IMG SRC=/a.jpg?x=1&amp;y=2#f ALT='&eacute;'/>", [("http://site.example/a.jpg?x=1&y=2", "é")]),
        ("<img src='//cdn.example/a.jpg'>", [("http://cdn.example/a.jpg", "")]),
        ('<img src="a.jpg" src="b.jpg">', [("http://site.example/dir/a.jpg", "")]),
        ('<img alt="<img src=no.jpg>" src="a.jpg">', [("http://site.example/dir/a.jpg", "<img src=no.jpg>")]),
        (
            '<img src="s.jpg" srcset="m.jpg 640w, l.jpg 1280w, s.jpg 320w">',
            [("http://site.example/dir/l.jpg", "")],
        ),
        ('<img src="data:image/gif;base64,AAAA" data-src="a.jpg">', [("http://site.example/dir/a.jpg", "")]),
        ('<img src="spacer.gif" data-original="a.jpg">', [("http://site.example/dir/a.jpg", "")]),
        ('<img src="data:image/gif;base64,AAAA">', []),
        ('<img src="javascript:x()"><img src="ftp://a/b.jpg"><img alt=x><img>', []),
        ("<image src=a.jpg><imgx src=b.jpg>", []),
        ("<!-- <img src=a.jpg> --><img src=b.jpg>", [("http://site.example/dir/b.jpg", "")]),
        ("<script>'<img src=a.jpg>'</SCRIPT ><img src=b.jpg>", [("http://site.example/dir/b.jpg", "")]),
        ("<noscript><img src=b.jpg></noscript>", [("http://site.example/dir/b.jpg", "")]),
        ('<base href="http://b.example/x/"><img src="a.jpg">', [("http://b.example/x/a.jpg", "")]),
        ('<base href="y/"><base href="z/"><img src="a.jpg">', [("http://site.example/dir/y/a.jpg", "")]),
        ('<img src=" a\nb.jpg ">', [("http://site.example/dir/ab.jpg", "")]),
        ('<img src="http://[">', []),
        ('<img src="a.jpg', []),
        ("<img src=a.jpg", [("http://site.example/dir/a.jpg", "")]),
    ],
)
def test_a_page(text: str, expected: list[tuple[str, str]]):
    assert links(text) == expected


def test_candidates_of_a_srcset():
    assert largest_candidate("a.jpg, b.jpg 2x, c.jpg 1.5x") == "b.jpg"
    assert largest_candidate("http://x/a,b.jpg 100w,http://x/c.jpg 200w") == "http://x/c.jpg"
    assert largest_candidate("a.jpg") == "a.jpg"
    assert largest_candidate("data:image/gif;base64,AA== 900w, a.jpg 2w") == "a.jpg"
    assert largest_candidate("") == ""


@pytest.mark.parametrize(
    ("content", "out"), [("noindex, nofollow", True), ("index", False), ("NoAI", True), ("noimageai", True)]
)
def test_a_page_that_opts_out(content: str, out: bool):
    assert page_images(f'<meta name="Robots" content="{content}"><img src=a.jpg>', PAGE).opts_out == out


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "img":
            self.found.append(dict(reversed(attrs)).get("src") or "")


def test_against_the_parser_of_the_standard_library():
    image = '<a href=/p{i}><img class="c" src="/i{i}.jpg" alt=\'{i}\'></a>'
    text = "".join(
        f"<p class='x{i}'>a &lt; b <!-- {i} -->" + image.replace("{i}", str(i)) + "<br/>" for i in range(200)
    )
    parser = _Parser()
    parser.feed(text)
    assert [url.removeprefix("http://site.example") for url, _ in links(text)] == parser.found


@pytest.mark.parametrize(
    ("start", "again"),
    [
        ("", "<!--"),
        ("", "<script>"),
        ("", "<img "),
        ("", '<img a="'),
        ("", "<img a='\""),
        ("<img ", "a=b "),
        ("<img", " "),
        ("<img srcset='", "a "),
        ("<img srcset='", ","),
        ("<img srcset='", "a,"),
        ("<img srcset='", "(,"),
        ("<img alt='", "&"),
        ("<meta name=robots content='", "no"),
    ],
)
def test_a_page_made_to_take_long(start: str, again: str):
    """Four times the page takes about four times as long."""

    def seconds(times: int) -> float:
        text = start + again * times + "'>"
        begin = time.process_time()
        page_images(text, PAGE)
        return time.process_time() - begin

    assert seconds(16_000) < 10 * seconds(4_000) + 0.1


def test_encodings():
    assert decode_page("é".encode("latin-1"), "text/html; charset=ISO-8859-1") == "é"
    assert "é" in decode_page(b'<meta charset="utf-8">' + "é".encode(), "text/html")
    assert decode_page("é".encode("cp1252"), "text/html") == "é"
    assert decode_page("é".encode(), "text/html; charset=nonsense") == "é"
    assert decode_page(b"\xff\xfe", "text/html; charset=hex") == "ÿþ"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("windows-1251", "Привет"),
        ("Shift_JIS", "日本語"),
        ("gb2312", "中文"),
        ("big5", "中文"),
        ("euc-kr", "한국"),
        ("KOI8-R", "Привет"),
        ("iso-8859-15", "10 €"),
        ("UTF-16LE", "日本語"),
    ],
)
def test_an_encoding_of_the_web(name: str, text: str):
    assert decode_page(text.encode(name), f"text/html; charset={name}") == text


@pytest.mark.parametrize(
    "name", ["punycode", "idna", "utf-7", "unicode_escape", "raw_unicode_escape", "rot13"]
)
def test_other_codecs_are_as_unknown_ones(name: str):
    start = time.process_time()
    page = b"+ADw-img\\x41" + b"a-b" * 200_000
    assert decode_page(page, f"text/html; charset={name}") == page.decode()
    assert time.process_time() - start < 5


def test_a_page_of_nothing_but_images_is_cut():
    text = f'<base href="http://a.example/{"x" * 100_000}">' + '<img src="y">' * 20_000
    found = page_images(text + '<meta name="robots" content="noai">', "http://b.example/")
    assert len(found.links) == MAX_PAGE_LINKS
    assert found.links[-1] == ("http://b.example/y", "")
    assert found.num_left_out == 20_000 - MAX_PAGE_LINKS
    assert found.opts_out


def test_what_is_left_out_of_pages_is_noted(tmp_path: Path):
    pytest.importorskip("fastwarc")
    page = b"<img src=/y>" * (MAX_PAGE_LINKS + 3)
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\n"
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    path = tmp_path / "a.warc"
    path.write_bytes((head.encode() + block + b"\r\n\r\n") * 2)
    findings = Findings()
    source = WarcSource(path=str(path), take="links")
    found = list(linked_images(storage.stat(str(path)), source, findings=findings))
    assert len(found) == 2 * MAX_PAGE_LINKS
    assert not findings.problems
    [note] = findings.notes
    assert (note.what, note.detail[:2]) == ("many_links", "6 ")


def test_no_preview_in_a_search_is_no_opt_out():
    assert not page_images('<meta name="robots" content="index, max-image-preview:none">', PAGE).opts_out
    assert page_images('<meta name="robots" content="max-image-preview:none, NONE">', PAGE).opts_out


@pytest.mark.parametrize(
    ("meta", "out"),
    [
        ('name="lvd" content="noai"', True),
        ('name="googlebot" content="noindex"', False),
        ('name="robots" content="googlebot: noindex"', False),
        ('name="robots" content="NoIndex;nofollow"', True),
        ('name="robots" content="max-snippet:0, max-image-preview: none"', False),
        ('name="TDM-Reservation" content="1"', True),
        ('name="tdm-reservation" content="0"', False),
    ],
)
def test_whom_a_page_addresses(meta: str, out: bool):
    assert page_images(f"<meta {meta}><img src=a.jpg>", PAGE, product="lvd").opts_out == out
