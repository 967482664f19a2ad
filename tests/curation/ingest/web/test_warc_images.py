"""Images out of WARC files, as they were sent or as an archive changed them, and files that are damaged."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from peak_memory import risen_mb

from curation import storage
from curation.ingest.problems import Findings
from curation.ingest.sources import WarcSource
from curation.ingest.staging import StagedImage
from curation.ingest.web.warc_images import warc_images

IMAGE = bytes(range(256)) * 8


def record(
    body: bytes = IMAGE, *, url: str = "http://a/b.jpg", status: str = "200 OK", **fields: str
) -> bytes:
    """A response record; `fields` are HTTP headers, and WARC headers where they begin with WARC."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    http = {"Content-Type": "image/jpeg"} | {k: v for k, v in headers.items() if not k.startswith("WARC")}
    block = f"HTTP/1.1 {status}\r\n{lines(http)}\r\n".encode() + body
    warc = {
        "WARC-Type": "response",
        "WARC-Record-ID": "<urn:uuid:00000000-0000-0000-0000-000000000001>",
        "WARC-Date": "2024-05-01T10:00:00Z",
        "WARC-Target-URI": url,
        "Content-Type": "application/http; msgtype=response",
        "Content-Length": str(len(block)),
    }
    warc |= {k: v for k, v in headers.items() if k.startswith("WARC")}
    return f"WARC/1.0\r\n{lines(warc)}\r\n".encode() + block + b"\r\n\r\n"


def lines(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def chunked(body: bytes) -> bytes:
    pieces = [body[i : i + 700] for i in range(0, len(body), 700)]
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def images_of(path: Path, data: bytes, **settings: Any) -> tuple[list[StagedImage], Findings]:
    path.write_bytes(data)
    findings = Findings()
    source = WarcSource(path=str(path), **settings)
    return list(warc_images(storage.stat(str(path)), source, findings=findings)), findings


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_crawl_by_hand(tmp_path: Path, pack: Any):
    records = [
        record(WARC_Type="request"),
        record(),
        record(b"<html>", Content_Type="text/html"),
        record(status="404 Not Found"),
        record(b"2", url="http://user:secret@c/d?e=ü", Content_Type="IMAGE/PNG"),
        record(b"half", WARC_Truncated="length"),
        record(b"", Content_Type="image/webp"),
    ]
    found, findings = images_of(tmp_path / "a.warc.gz", b"".join(map(pack, records)), key_prefix="p/")
    assert not findings.problems
    assert [(i.key, i.data, i.reason) for i in found] == [
        ("p/a.warc.gz/00000000", IMAGE, None),
        ("p/a.warc.gz/00000001", b"2", None),
        ("p/a.warc.gz/00000002", None, "truncated"),
        ("p/a.warc.gz/00000003", b"", None),
    ]
    assert [i.uri for i in found[:2]] == ["http://a/b.jpg", "http://***@c/d?e=ü"]
    assert json.loads(found[0].sidecars["json"]) == {
        "url": "http://a/b.jpg",
        "date": "2024-05-01T10:00:00Z",
        "content_type": "image/jpeg",
    }


def plain_record(kind: str, content_type: str, body: bytes = IMAGE) -> bytes:
    """A record without an answer in it."""
    warc = {"WARC-Type": kind, "WARC-Date": "2024-05-01T10:00:00Z", "WARC-Target-URI": "http://a/r.png"}
    warc |= {"Content-Type": content_type, "Content-Length": str(len(body))}
    return f"WARC/1.1\r\n{lines(warc)}\r\n".encode() + body + b"\r\n\r\n"


def test_resources_are_images_and_what_is_left_out_is_counted(tmp_path: Path):
    png = b"\x89PNG\r\n\x1a\n" + IMAGE
    records = [
        plain_record("resource", "image/PNG"),
        plain_record("resource", "text/html"),
        plain_record("conversion", "image/png"),
        plain_record("conversion", "text/plain"),
        plain_record("metadata", "image/png"),
        record(png, Content_Type="application/octet-stream"),
        record(b"RIFF1234WEBPVP8 ", Content_Type=""),
        record(b"PK\3\4", Content_Type="application/octet-stream"),
        record(png, Content_Type="text/html"),
        record(status="206 Partial Content"),
        record(status="203 Non-Authoritative Information"),
        record(status="203 Non-Authoritative Information", Content_Type="text/html"),
        record(status="404 Not Found"),
        record(b"last"),
    ]
    found, findings = images_of(tmp_path / "a.warc", b"".join(records))
    assert [(i.key[-1], i.uri, i.data) for i in found] == [
        ("0", "http://a/r.png", IMAGE),
        ("1", "http://a/b.jpg", b"last"),
    ]
    assert json.loads(found[0].sidecars["json"])["content_type"] == "image/PNG"
    assert not findings.problems
    [note] = findings.notes
    assert note.what == "image_records"
    assert note.detail == (
        "images are left out: 2 in answers of no image type, 1 in answers of status 203, "
        "1 in answers of status 206, 1 in conversion records"
    )


def test_opt_outs_are_honoured(tmp_path: Path):
    records = [
        record(X_Robots_Tag="noai"),
        record(X_Robots_Tag="otherbot: noindex"),
        record(Tdm_Reservation="1"),
        record(X_Robots_Tag="lvd-image-downloader: noimageindex"),
    ]
    found, _ = images_of(tmp_path / "a.warc", b"".join(records))
    assert [i.reason for i in found] == ["opted_out", None, "opted_out", "opted_out"]
    found, _ = images_of(tmp_path / "a.warc", b"".join(records), download={"honour_opt_outs": False})
    assert [i.data for i in found] == [IMAGE] * 4


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (gzip.compress(IMAGE), {"Content_Encoding": "gzip"}, IMAGE),
        (zlib.compress(IMAGE), {"Content_Encoding": "deflate"}, IMAGE),
        (chunked(IMAGE), {"Transfer_Encoding": "chunked"}, IMAGE),
        (chunked(gzip.compress(IMAGE)), {"Transfer_Encoding": "chunked", "Content_Encoding": "gzip"}, IMAGE),
        (IMAGE, {"Content_Encoding": "gzip"}, IMAGE),  # the archive has undone it, and kept the header
        (IMAGE, {"Transfer_Encoding": "chunked"}, IMAGE),
        (IMAGE, {"Content_Encoding": "br"}, IMAGE),
    ],
)
def test_encodings(tmp_path: Path, body: bytes, headers: dict[str, str], expected: bytes):
    # The second record comes whatever the first one claims.
    found, findings = images_of(tmp_path / "a.warc", record(body, **headers) + record(b"next"))
    assert [i.data for i in found] == [expected, b"next"]
    assert not findings.problems


def test_what_is_too_large_is_not_kept(tmp_path: Path):
    bomb = gzip.compress(bytes(10 << 20))
    records = record(bomb, Content_Encoding="gzip") + record(bytes(30_000)) + record(bytes(20_000))
    found, _ = images_of(tmp_path / "a.warc", records, max_image_bytes=20_000)
    assert [(i.reason, i.data and len(i.data)) for i in found] == [
        ("file_too_large", None),
        ("file_too_large", None),
        (None, 20_000),
    ]


@pytest.mark.parametrize(
    ("data", "what", "num_images"),
    [
        (b"", "empty_file", 0),
        (b"no archive\n" * 100, "corrupt", 0),
        (gzip.compress(b"no archive\n" * 100, mtime=0), "corrupt", 0),
        (record() + record()[:-100], "truncated", 2),
        (gzip.compress(record()) + gzip.compress(record())[:-60], "truncated", 2),
        (record() + b"junk" * 100 + record(), "corrupt", 1),
    ],
)
def test_damage_is_named_and_what_was_read_is_kept(tmp_path: Path, data: bytes, what: str, num_images: int):
    found, findings = images_of(tmp_path / "a.warc", data)
    assert [problem.what for problem in findings.problems] == [what]
    assert len(found) == num_images
    assert [i.reason for i in found[1:]] == ["truncated"] * (num_images - 1)


@pytest.mark.parametrize("name", ["X-Many", "WARC-Long"])
def test_headers_without_end_are_damage(tmp_path: Path, name: str):
    """They end the file and are not held: FastWARC takes 32 KiB of them."""
    small, bomb = tmp_path / "small.warc.gz", tmp_path / "bomb.warc.gz"
    small.write_bytes(gzip.compress(record()))
    bomb.write_bytes(gzip.compress(record() + record(**{name: "x" * 100_000_000}), 1))
    setup = """
        from curation import storage
        from curation.ingest.problems import Findings
        from curation.ingest.sources import WarcSource
        from curation.ingest.web.warc_images import warc_images
    """
    work = """
        findings = Findings()
        images = list(warc_images(storage.stat(path), WarcSource(path=path), findings=findings))
        assert len(images) == 1
        assert [p.what for p in findings.problems] == ["corrupt"] * ("bomb" in path)
    """
    assert risen_mb(setup, work, harmless=small, tried=bomb) < 20
