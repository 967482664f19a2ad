"""One request: what is taken of an answer, and why there may be none."""

import asyncio
import gzip
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from loopback import PICTURE, Handler, Loopback, answer
from yarl import URL

from curation.ingest.web.addresses import parse_networks
from curation.ingest.web.download_config import DownloadConfig
from curation.ingest.web.fetch import BodyLimit, FetchError, HttpAnswer, ask, open_session

LOOPBACK = ("127.0.0.0/8",)


def _ask(
    url: str, limit: BodyLimit, *, product: str | None = None, allowed: tuple[str, ...] = LOOPBACK
) -> HttpAnswer:
    async def once() -> HttpAnswer:
        networks = parse_networks(allowed)
        async with open_session(DownloadConfig(read_s=0.5, connect_s=0.5), networks) as session:
            return await ask(session, URL(url), limit=limit, product=product)

    return asyncio.run(once())


def _body(found: HttpAnswer) -> bytes:
    assert found.body is not None
    with found.body as body:
        body.seek(0)
        return body.read()


@pytest.fixture
def limit(tmp_path: Path) -> BodyLimit:
    return BodyLimit(2000, cuts=False, spool_dir=tmp_path)


@pytest.mark.parametrize(
    ("handler", "body"),
    [
        (answer(), PICTURE),
        (answer(gzip.compress(PICTURE), headers={"Content-Encoding": "gzip"}), PICTURE),
        (answer(headers={"Content-Encoding": "gzip"}), PICTURE),  # it is in no such coding: taken as it is
        (answer(headers={"Content-Encoding": "UTF-8"}), PICTURE),
    ],
)
def test_a_body_is_taken(server: Loopback, limit: BodyLimit, handler: Handler, body: bytes) -> None:
    server.routes["/x"] = handler
    assert _body(_ask(server.url("/x"), limit)) == body
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert "cookie" not in server.requests[0].headers


def test_a_redirect_is_told_and_not_followed(server: Loopback, limit: BodyLimit) -> None:
    server.routes["/x"] = answer(b"", 302, {"Location": "/y"})
    assert _ask(server.url("/x"), limit) == HttpAnswer("/y", None)
    assert not server.asked("/y")


PACKED = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (answer(b"", 404), ("not_found", False, 404)),
        (answer(b"", 403), ("http_error", False, 403)),
        (answer(b"", 503), ("http_error", True, 503)),
        (answer(bytes(2001)), ("file_too_large", False, None)),
        (answer(gzip.compress(bytes(9000)), headers=PACKED), ("file_too_large", False, None)),
        (answer(headers={"X-Robots-Tag": "noai"}), ("opted_out", False, None)),
        (answer(wait_s=2), ("timeout", True, None)),
    ],
)
def test_why_there_is_no_image(
    server: Loopback, limit: BodyLimit, handler: Handler, told: tuple[str, bool, int | None]
) -> None:
    server.routes["/x"] = handler
    with pytest.raises(FetchError) as error:
        _ask(server.url("/x"), limit, product="lvd")
    found = error.value
    assert (found.reason, found.may_pass, found.status) == told
    assert found.of_host == (found.reason == "timeout")
    assert str(found) == found.reason


def test_opt_outs_count_where_they_are_honoured(server: Loopback, limit: BodyLimit) -> None:
    server.routes["/x"] = answer(headers={"X-Robots-Tag": "noai"})
    assert _body(_ask(server.url("/x"), limit)) == PICTURE


def test_addresses_that_are_not_public_are_not_asked(server: Loopback, limit: BodyLimit) -> None:
    with pytest.raises(FetchError, match="forbidden_address"):
        _ask(server.url("/x"), limit, allowed=())
    assert not server.requests


def test_nobody_listens(limit: BodyLimit) -> None:
    with pytest.raises(FetchError, match="connection_failed") as error:
        _ask("http://127.0.0.1:1/x", limit)
    assert error.value.of_host
    assert error.value.may_pass


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 7), ("in 100 s", 60, 101), (formatdate(0), 0, 0), ("soon", None, None)],
)
def test_when_a_host_wants_to_be_asked_again(
    server: Loopback, limit: BodyLimit, value: str, least: float | None, most: float | None
) -> None:
    date = formatdate(time.time() + 100) if value == "in 100 s" else value  # from when it is asked
    server.routes["/x"] = answer(b"", 429, {"Retry-After": date})
    with pytest.raises(FetchError) as error:
        _ask(server.url("/x"), limit)
    found = error.value.retry_after_s
    assert found is None if least is None or most is None else found is not None and least <= found <= most


def test_a_text_is_cut_and_an_odd_one_refused(server: Loopback, tmp_path: Path) -> None:
    rules = BodyLimit(100, cuts=True, spool_dir=tmp_path, takes_odd=False)
    server.routes["/x"] = answer(bytes(5000))
    assert len(_body(_ask(server.url("/x"), rules))) == 100
    server.routes["/x"] = answer(gzip.compress(b"a" * 5000), headers={"Content-Encoding": "gzip"})
    assert _body(_ask(server.url("/x"), rules)) == b"a" * 100
    for coding in ("gzip", "rot13"):
        server.routes["/x"] = answer(b"plain", headers={"Content-Encoding": coding})
        with pytest.raises(FetchError, match="http_error"):
            _ask(server.url("/x"), rules)
