"""The images that a page of HTML shows: its `<img>` tags, with what stands for them in words.

One pass over the text that looks at the few tags which matter. It is no parser of HTML and needs none: what
is wanted stands in the attributes of single tags. The time is linear in a page's length, whatever it holds.

Source: HTML Living Standard, §13.2.5 (tokenization), §4.8.4 (images, srcset).
"""

import codecs
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urljoin

from curation.ingest.web.download_config import MAX_URL_CHARS
from curation.ingest.web.opt_out import forbids, reserves

MAX_PAGE_BYTES = 8 << 20
# A page that shows more is a trap for crawlers, or might as well be one.
MAX_PAGE_LINKS = 4096
_MAX_ATTRIBUTES = 64
_TAG = re.compile(r"<(?:!--|(img|base|meta|script|style|textarea|title|xmp|iframe|noembed)(?=[\s/>]))", re.I)
# Elements whose content is text, in which `<img` means nothing. Not noscript: there stand the images of pages
# that load them lazily.
_END_OF_TEXT = {
    name: re.compile(rf"</{name}(?=[\s/>])", re.I)
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed")
}
_ATTRIBUTE = re.compile(
    r"""[\s/]*([^\s"'<>/=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'<>][^\s<>]*)))?""", re.DOTALL
)
# Where pages that load images lazily keep the real one.
_LAZY = ("data-src", "data-original", "data-lazy-src")


@dataclass
class PageImages:
    """What a page shows.

    Args:
        links: absolute URL and alternative text of every image, in the order of the page.
        opts_out: whether the page forbids indexing or training in a `<meta>`.
        num_left_out: images beyond the first `MAX_PAGE_LINKS`.
    """

    links: list[tuple[str, str]] = field(default_factory=list)
    opts_out: bool = False
    num_left_out: int = 0

    def add(self, link: str, alt: str) -> None:
        """Take one more image of the page."""
        if len(self.links) < MAX_PAGE_LINKS:
            self.links.append((link, " ".join(alt.split())))
        else:
            self.num_left_out += 1


def page_images(text: str, url: str, *, product: str = "robots") -> PageImages:
    """The images of a page.

    Of each `<img>` the largest candidate of its `srcset` is taken, else what it loads lazily, else its `src`.
    Images within the page itself (`data:`) are none.

    Args:
        url: where the page lies; a `<base>` in it goes before.
        product: the crawler's product token in lower case, which a `<meta>` may address.
    """
    found = PageImages()
    base = url
    for name, attributes in _tags(text):
        match name:
            case "img":
                link = best_link(attributes)
                if link and (joined := resolved(base, link)):
                    found.add(joined, attributes.get("alt", ""))
            case "base" if base == url and attributes.get("href"):
                base = base_of(url, attributes["href"])
            case "meta":
                content = attributes.get("content", "")
                found.opts_out |= page_forbids(attributes.get("name", ""), content, product)
    return found


def page_forbids(name: str, content: str, product: str) -> bool:
    """Whether a `<meta>` of a page forbids indexing or training, to all robots, to us, or to miners."""
    match name.strip().lower():
        case "tdm-reservation":
            return reserves(content)
        case addressed:
            return addressed in ("robots", product) and forbids(content, product)


def _tags(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The tags that matter, in order, with their attributes."""
    at = 0
    while match := _TAG.search(text, at):
        name = (match[1] or "").lower()
        if not name:  # a comment
            at = text.find("-->", match.end())
        elif name in _END_OF_TEXT:
            end = _END_OF_TEXT[name].search(text, match.end())
            at = end.end() if end else -1
        else:
            attributes, at = _attributes(text, match.end())
            yield name, attributes
        if at < 0:
            return


def _attributes(text: str, at: int) -> tuple[dict[str, str], int]:
    """The attributes of a tag whose name ends at `at`, the first of each name, and where they end."""
    found: dict[str, str] = {}
    for _ in range(_MAX_ATTRIBUTES):
        match = _ATTRIBUTE.match(text, at)
        if match is None:
            break
        at = match.end()
        value = match[2] or match[3] or match[4] or ""
        found.setdefault(match[1].lower(), html.unescape(value))
    return found, at


def best_link(attributes: dict[str, str]) -> str:
    """The link of an image, of the several that its tag may have; empty where there is none."""
    for name in ("srcset", "data-srcset"):
        if largest := largest_candidate(attributes.get(name, "")):
            return largest
    links = [attributes.get(name, "").strip() for name in (*_LAZY, "src")]
    return next((link for link in links if link and not _is_inline(link)), "")


def largest_candidate(srcset: str) -> str:
    """The URL of the largest candidate of a `srcset`; the first among equals, empty where there is none."""
    best, largest = "", -1.0
    for url, descriptor in _candidates(srcset):
        size = _size(descriptor)
        if size > largest and not _is_inline(url):
            best, largest = url, size
    return best


def _candidates(srcset: str) -> Iterator[tuple[str, str]]:
    """The URLs of a `srcset`, which commas may stand in but not end, with the last descriptor of each."""
    url = descriptor = ""
    for word in srcset.split():
        rest = word
        while rest:
            if not url:
                url = rest.lstrip(",")
                is_alone, url, rest = url.endswith(","), url.rstrip(","), ""
            else:
                descriptor, comma, rest = rest.partition(",")
                is_alone = bool(comma)
            if is_alone and url:
                yield url, descriptor
                url = descriptor = ""
    if url:
        yield url, descriptor


def _size(descriptor: str) -> float:
    """What `640w` or `2x` says; 1 where nothing is said."""
    try:
        return float(descriptor[:-1]) if descriptor[-1:] in ("w", "x") else 1.0
    except ValueError:
        return 1.0


def _is_inline(link: str) -> bool:
    return link[:5].lower() == "data:"


def base_of(url: str, href: str) -> str:
    """From where the links of a page are seen: its `<base>`, where that is an address, or the page itself.

    A long one, before many short links, would come to far more than the page.
    """
    base = resolved(url, href)
    return base if 0 < len(base) <= MAX_URL_CHARS else url


def resolved(base: str, link: str) -> str:
    """`link` as seen from `base`: an absolute http(s) URL, or empty."""
    try:
        joined = urljoin(base, re.sub(r"[\t\r\n]", "", link).strip()).partition("#")[0]
    except ValueError:
        return ""
    return joined if joined[:7].lower() == "http://" or joined[:8].lower() == "https://" else ""


# The encodings of the web, as Python calls them. What else Python decodes is no page: `punycode` takes the
# square of a page's length, and `utf-7` hides tags.
# Source: Encoding Standard, §4.2.
_ENCODINGS = frozenset(
    (
        *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "ascii"),
        *(f"iso8859-{part}" for part in range(1, 17) if part != 12),
        *(f"cp{page}" for page in (866, 874, *range(1250, 1259))),
        *("koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "tis-620"),
        *("gb2312", "gbk", "gb18030", "big5", "big5hkscs", "euc_jp", "iso2022_jp", "shift_jis", "cp932"),
        *("euc_kr", "cp949"),
    )
)
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""", re.I)


def decode_page(data: bytes, content_type: str) -> str:
    """The text of a page: in the encoding of the web that its header or its first kilobytes name, or UTF-8.

    Args:
        content_type: of the header, such as `text/html; charset=utf-8`.
    """
    named = re.search(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", content_type, re.I)
    inside = _CHARSET.search(data[:4096])
    names = [named[1] if named else "", inside[1].decode() if inside else "", "utf-8"]
    for name in names:
        try:
            encoding = codecs.lookup(name or "utf-8").name
            if encoding in _ENCODINGS:
                return data.decode(encoding)
        except (LookupError, ValueError):
            continue
    return data.decode("cp1252", "replace")
