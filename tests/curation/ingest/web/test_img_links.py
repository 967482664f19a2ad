"""Links to images out of pages, and out of the WARC and WAT files that hold them."""

import time
from html.parser import HTMLParser

import pytest

from curation.ingest.web.img_tags import decode_page, largest_candidate, page_images

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
