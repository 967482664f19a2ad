"""Links to images out of a web crawl: WARC files hold its pages, WAT files what was parsed from them.

FastWARC, of the extra `web`, is imported once a file is read.
"""

import json
from collections.abc import Iterator
from typing import Any

from curation import storage
from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import as_text
from curation.ingest.sources import WarcSource
from curation.ingest.web.download_config import MAX_URL_CHARS
from curation.ingest.web.img_tags import (
    MAX_PAGE_BYTES,
    MAX_PAGE_LINKS,
    PageImages,
    base_of,
    best_link,
    decode_page,
    page_forbids,
    page_images,
    resolved,
)
from curation.ingest.web.opt_out import opts_out
from curation.ingest.web.robots import product_token
from curation.ingest.web.stage_urls import WebImage
from curation.ingest.web.warc_images import decode_payload, open_warc
from curation.printed import redact_url, redact_value

_PAGES = ("text/html", "application/xhtml+xml")
# The longest metadata of a page that is read (bytes); beyond it the JSON would be cut.
_MAX_WAT_BYTES = 32 << 20


def linked_images(info: storage.FileInfo, source: WarcSource, *, findings: Findings) -> Iterator[WebImage]:
    """Stream the images that the pages of a file show.

    A row's key is `key_prefix`, the file's key, a slash and the number of the link within the file. The json
    beside it has the alternative text and the page. Links of a page that forbids it, in its headers or in a
    `<meta name=robots>`, are rows that are `opted_out`. Of a page, the first `MAX_PAGE_LINKS` are taken.
    """
    number = num_left_out = 0
    product = product_token(source.download.user_agent)
    with open_warc(info, findings) as records:
        for record in records:
            url = as_text(record.headers.get("WARC-Target-URI", "").strip("<>"))[:MAX_URL_CHARS]
            page = _page(record, url, product)
            num_left_out += page.num_left_out
            for link, alt in page.links:
                key = f"{source.key_prefix}{as_text(info.key)}/{number:08d}"
                out = page.opts_out and source.download.honour_opt_outs
                yield WebImage(key, link, {"json": _sidecar(alt, url)}, "opted_out" if out else None)
                number += 1
    if num_left_out:
        detail = (
            f"{num_left_out} images of pages are left out, those beyond the first {MAX_PAGE_LINKS} of each"
        )
        findings.notes.append(Problem(info.path, "many_links", detail))


def _sidecar(alt: str, page: str) -> bytes:
    values = {"alt": redact_value(alt), "page": redact_url(page)}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _page(record: Any, url: str, product: str) -> PageImages:
    """What a record's page shows; nothing for a record that is none."""
    from fastwarc.warc import WarcRecordType

    match record.record_type:
        case WarcRecordType.response if record.http_headers is not None:
            return _html_page(record, url, product)
        case WarcRecordType.metadata:
            return wat_images(record.reader.read(_MAX_WAT_BYTES), url, product)
    return PageImages()


def _html_page(record: Any, url: str, product: str) -> PageImages:
    http = record.http_headers
    kind = (record.http_content_type or "").lower()
    if http.status_code != 200 or kind.partition(";")[0].strip() not in _PAGES:
        return PageImages()
    data = decode_payload(record.reader.read(MAX_PAGE_BYTES), http, limit=MAX_PAGE_BYTES)
    page = page_images(decode_page(data, http.get("Content-Type") or ""), url, product=product)
    tags = [value for name, value in http if name.lower() == "x-robots-tag"]
    page.opts_out |= opts_out({k.lower(): v for k, v in http}, robots_tags=tags, product=product)
    return page


def wat_images(data: bytes, url: str, product: str) -> PageImages:
    """What the metadata of a page (one record of a WAT file) say that it shows.

    Args:
        data: JSON; what is none, or of another form, shows nothing.
        product: the crawler's product token, to whom headers may be addressed.
    """
    try:
        envelope = json.loads(data)["Envelope"]
        response = envelope["Payload-Metadata"]["HTTP-Response-Metadata"]
        page = response.get("HTML-Metadata") or {}
        head = page.get("Head") or {}
        links = page.get("Links") or []
        base = base_of(url, str(head.get("Base") or ""))
        headers = {str(k).lower(): str(v) for k, v in (response.get("Headers") or {}).items()}
        metas = [(str(m.get("name", "")), str(m.get("content", ""))) for m in head.get("Metas") or []]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return PageImages()
    found = PageImages()
    tags = [headers["x-robots-tag"]] if "x-robots-tag" in headers else []
    found.opts_out = opts_out(headers, robots_tags=tags, product=product) or any(
        page_forbids(name, content, product) for name, content in metas
    )
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and str(link.get("path", "")).lower().startswith("img@"):
            best = best_link({str(link["path"])[5:].lower(): str(link.get("url") or "")})
            if best and (joined := resolved(base, best)):
                found.add(joined, str(link.get("alt") or ""))
    return found
