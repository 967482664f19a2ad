"""WARC files of a web crawl: the answers that are images.

FastWARC, of the extra `web`, is imported once a file is read.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from curation import storage
from curation.ingest.problems import Findings, Problem, Unread
from curation.ingest.rows import as_text
from curation.ingest.sources import WarcSource
from curation.ingest.staging import StagedImage
from curation.ingest.web.content_coding import CodingError, codings_of, decode
from curation.ingest.web.download_config import MAX_URL_CHARS
from curation.ingest.web.opt_out import opts_out
from curation.ingest.web.robots import product_token
from curation.packages import needing

_OK, _REDIRECTS = 200, 300
_NO_IMAGE = ""
# What a server sends where it does not know: such an answer may be an image.
_UNTYPED = ("", "application/octet-stream", "binary/octet-stream", "application/x-download")
_IMAGE_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|RIFF.{4}WEBP|II\*\0|MM\0\*|.{4}ftypavi[fs]", re.DOTALL
)


@contextmanager
def open_warc(info: storage.FileInfo, findings: Findings) -> Iterator[Iterator[Any]]:
    """The records of a WARC file, of any type, HTTP headers parsed; compression is told by the bytes.

    Payloads are as they were sent: one whose encoding is not the one that it claims shall not end the file.
    Damage, wherever it is met while records are gone through and read, ends the block and is a finding.

    Raises:
        ConfigError: when FastWARC is not installed, or broken.
    """
    with needing("WARC files are read with FastWARC", install="On every machine: pip install 'lvd[web]'"):
        from fastwarc.warc import ArchiveIterator
    num_records = 0

    def counted(stream: Any) -> Iterator[Any]:
        nonlocal num_records
        for record in ArchiveIterator(stream, parse_http=True, auto_decode="none"):
            num_records += 1
            yield record

    try:
        with storage.open_stream(info.path) as stream:
            yield counted(stream)
    except OSError as error:
        detail = f"after {num_records} records: {' '.join(str(error).split())[:300]}"
        is_damage = storage.is_local(info.path) and error.errno is None
        findings.problems.append(Problem(info.path, "corrupt" if is_damage else "unreadable", detail))
        return
    if not num_records:
        what: Unread = "empty_file" if info.num_bytes == 0 else "not_a_warc"
        findings.problems.append(Problem(info.path, what, f"{info.num_bytes} bytes, and no record", 0))


def warc_images(info: storage.FileInfo, source: WarcSource, *, findings: Findings) -> Iterator[StagedImage]:
    """Stream the images of a file: responses of status 200, and resources, whose content type is `image/…`.

    A row's key is `key_prefix`, the file's key, a slash, and the number of the image within the file; its URI
    is the URL. The json beside it has the URL, the time of the crawl and the content type. An answer that the
    crawler cut short is a row with the reason `truncated`, and one whose headers opt out, where that is
    honoured, one with `opted_out`. Images in other records and answers are counted in a note.
    """
    number, left_out = 0, Counter[str]()
    with open_warc(info, findings) as records:
        for num_records, record in enumerate(records, 1):
            if (why := _why_not(record)) is not None:
                left_out[why] += 1
                continue
            key = f"{source.key_prefix}{as_text(info.key)}/{number:08d}"
            image, is_torn = _image(record, key, source)
            yield image
            number += 1
            if is_torn:
                detail = f"the file ends inside record {num_records}"
                findings.problems.append(Problem(info.path, "truncated", detail))
    del left_out[_NO_IMAGE]
    if left_out:
        detail = "images are left out: " + ", ".join(
            f"{num} in {why}" for why, num in sorted(left_out.items())
        )
        findings.notes.append(Problem(info.path, "image_records", detail))


def _why_not(record: Any) -> str | None:
    """None for an image that is taken; for another, what it lies in."""
    from fastwarc.warc import WarcRecordType

    http, is_image = record.http_headers, _content_type(record).startswith("image/")
    if record.record_type == WarcRecordType.response and http is not None:
        if http.status_code != _OK:
            is_answer = is_image and _OK < http.status_code < _REDIRECTS
            return f"answers of status {http.status_code}" if is_answer else _NO_IMAGE
        if not is_image and _content_type(record).partition(";")[0].strip() in _UNTYPED:
            return "answers of no image type" if _IMAGE_START.match(record.reader.read(16)) else _NO_IMAGE
        return None if is_image else _NO_IMAGE
    if not is_image or record.record_type == WarcRecordType.resource:
        return None if is_image else _NO_IMAGE
    others = (WarcRecordType.conversion, "conversion"), (WarcRecordType.revisit, "revisit")
    return next((f"{name} records" for kind, name in others if record.record_type == kind), _NO_IMAGE)


def _named_type(record: Any) -> str | None:
    """The content type of the answer, or of a record that is none."""
    has_answer = record.http_headers is not None
    named: str | None = record.http_content_type if has_answer else record.headers.get("Content-Type")
    return named


def _content_type(record: Any) -> str:
    return (_named_type(record) or "").strip().lower()


def _image(record: Any, key: str, source: WarcSource) -> tuple[StagedImage, bool]:
    """The image of a record, and whether the file ends before the record does."""
    url = as_text(record.headers.get("WARC-Target-URI", "").strip("<>"))
    shown = storage.redact(url)
    kept = {"url": shown, "date": record.headers.get("WARC-Date"), "content_type": _named_type(record)}
    sidecars = {"json": json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()}
    limit = source.max_image_bytes
    data, reason, is_torn = None, None, False
    http = record.http_headers or {}  # a resource has none
    if source.download.honour_opt_outs and _opts_out(http, source.download.user_agent):
        reason = "opted_out"
    elif record.content_length > limit:
        reason = "file_too_large"
    else:
        sent = record.reader.read(record.content_length)
        is_torn = len(sent) < record.content_length
        data = decode_payload(sent, http, limit=limit)
        if is_torn or record.headers.get("WARC-Truncated"):
            data, reason = None, "truncated"
        elif len(data) > limit:
            data, reason = None, "file_too_large"
    return StagedImage(key, shown[:MAX_URL_CHARS], data, reason, sidecars), is_torn


def _opts_out(headers: Any, user_agent: str) -> bool:
    pairs = [(name.lower(), value) for name, value in headers.items()]
    tags = [value for name, value in pairs if name == "x-robots-tag"]
    return opts_out(dict(pairs), robots_tags=tags, product=product_token(user_agent))


def decode_payload(sent: bytes, headers: Any, *, limit: int) -> bytes:
    """The body behind a payload as it was sent: chunks joined, codings undone.

    Many archives keep the header of an encoding that they have undone: bytes that are not in the encoding
    that they claim are taken as they are.

    Args:
        limit: no more than one byte beyond it comes back, whatever it inflates to.
    """
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        sent = _join_chunks(sent)
    codings = codings_of(headers.get("Content-Encoding") or "")
    if not codings:
        return sent
    out = io.BytesIO()
    try:
        decode(io.BytesIO(sent).read, codings, out.write, limit=limit + 1)
    except CodingError:
        return sent
    return out.getvalue()


def _join_chunks(sent: bytes) -> bytes:
    """The data of a chunked body (RFC 9112, 7.1), or the bytes themselves where they are none."""
    data, start = [], 0
    while start < len(sent):
        end = sent.find(b"\r\n", start)
        size = sent[start:end].partition(b";")[0].strip()
        try:
            num_bytes = int(size, 16)
        except ValueError:
            return sent
        start = end + 2 + num_bytes
        if end < 0 or num_bytes < 0 or start > len(sent):
            return sent
        data.append(sent[end + 2 : start])
        if num_bytes == 0:
            return b"".join(data)
        start += 2
    return sent
