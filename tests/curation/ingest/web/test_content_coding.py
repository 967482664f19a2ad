"""Codings of bodies are undone up to a limit, whatever they come to."""

import gzip
import io
import zlib

import pyarrow as pa
import pytest

from curation.ingest.web.content_coding import CodingError, codings_of, decode

DATA = bytes(range(256)) * 400


def _decoded(body: bytes, header: str, *, limit: int = 1 << 20) -> bytes:
    codings = codings_of(header)
    assert codings is not None
    out = io.BytesIO()
    decode(io.BytesIO(body).read, codings, out.write, limit=limit)
    return out.getvalue()


RAW = zlib.compressobj(wbits=-15)
BODIES = {
    "gzip": gzip.compress(DATA),
    "x-gzip": gzip.compress(DATA[:1000]) + gzip.compress(DATA[1000:]),
    "deflate": zlib.compress(DATA),
    "Deflate ": RAW.compress(DATA) + RAW.flush(),
    "identity": DATA,
    "": DATA,
    "gzip, identity, deflate": zlib.compress(gzip.compress(DATA)),
}


@pytest.mark.parametrize("header", BODIES)
def test_a_body_comes_back(header: str) -> None:
    assert _decoded(BODIES[header], header) == DATA


@pytest.mark.parametrize(("coding", "codec"), [("br", "brotli"), ("zstd", "zstd")])
def test_arrows_codecs(coding: str, codec: str) -> None:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, codec) as out:
        out.write(DATA)
    body = packed.getvalue().to_pybytes()
    assert _decoded(body, coding) == DATA
    assert _decoded(body, coding, limit=100) == DATA[:100]


@pytest.mark.parametrize("header", ["UTF-8", "gzip, rot13", "gzip, gzip, gzip, gzip"])
def test_unknown_ones_and_too_many_are_none(header: str) -> None:
    assert codings_of(header) is None


def test_no_more_than_the_limit_comes_of_a_bomb() -> None:
    bomb = gzip.compress(gzip.compress(bytes(50 << 20)))
    assert _decoded(bomb, "gzip, gzip", limit=1000) == bytes(1000)


@pytest.mark.parametrize("header", ["gzip", "deflate", "br", "zstd"])
def test_what_is_in_no_such_coding_is_told(header: str) -> None:
    with pytest.raises(CodingError):
        _decoded(b"\x01plain bytes of no coding at all" * 9, header)


def test_what_ends_early_or_breaks_is_taken_as_far_as_it_goes() -> None:
    whole = gzip.compress(DATA)
    cut = _decoded(whole[: len(whole) // 2], "gzip")
    assert 0 < len(cut) < len(DATA)
    assert DATA.startswith(cut)
    assert _decoded(whole + b"trailing", "gzip") == DATA
