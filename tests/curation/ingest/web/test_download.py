"""The downloader against a server that behaves, and one that does everything but."""

import asyncio
import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from loopback import PICTURE, FakeResolver, Loopback, Request, answer

from curation.ingest.web.download import Downloads, Fetched, download
from curation.ingest.web.download_config import DownloadConfig

LOOPBACK = ("127.0.0.0/8", "::1/128")


def config(**fields: object) -> DownloadConfig:
    quick = {"backoff_s": 0.01, "allow_private": LOOPBACK, "connect_s": 2.0, "read_s": 0.3, "total_s": 2.0}
    return DownloadConfig.model_validate({**quick, "honour_robots": False, **fields})


def get(
    urls: list[str], folder: Path, settings: DownloadConfig | None = None, **more: object
) -> list[Fetched]:
    return list(download(urls, settings or config(), Downloads(folder, **more)))  # type: ignore[arg-type]


def reasons(urls: list[str], folder: Path, settings: DownloadConfig | None = None, **more: object) -> list:
    return [fetched.reason for fetched in get(urls, folder, settings, **more)]


def test_images_come_in_the_order_of_their_urls(server: Loopback, tmp_path: Path):
    for i in range(20):
        server.routes[f"/{i}.jpg"] = answer(bytes([i]) * 100, wait_s=0.05 if i % 3 == 0 else 0)
    found = get([server.url(f"/{i}.jpg") for i in range(20)], tmp_path)
    assert found == [Fetched(bytes([i]) * 100, None) for i in range(20)]
    sent = server.requests[0].headers
    assert sent["user-agent"] == "lvd-image-downloader/1.0"
    assert sent["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "referer"} & set(sent)


def test_every_answer_has_its_reason(server: Loopback, tmp_path: Path):
    server.routes = {
        "/ok": answer(),
        "/empty": answer(b""),
        "/410": answer(b"", 410),
        "/403": answer(b"", 403),
        "/204": answer(b"", 204),
        "/no-gzip": answer(PICTURE, headers={"Content-Encoding": "gzip"}),
        "/utf-8": answer(PICTURE, headers={"Content-Encoding": "UTF-8"}),
        "/noai": answer(headers={"X-Robots-Tag": "noai"}),
        "/other": answer(headers={"X-Robots-Tag": "otherbot: noindex"}),
        "/tdm": answer(headers={"TDM-Reservation": "1"}),
        "/to-file": answer(b"", 302, {"Location": "file:///etc/passwd"}),
        "/to-nowhere": answer(b"", 302, {"Location": "http://["}),
    }
    paths = [*server.routes, "/absent"]
    assert dict(zip(paths, reasons([server.url(p) for p in paths], tmp_path), strict=True)) == {
        "/ok": None,
        "/empty": None,  # what is empty is for `describe` to say
        "/410": "not_found",
        "/403": "http_error",
        "/204": "http_error",
        "/no-gzip": None,  # what claims a coding that it is not in is for `describe` to judge
        "/utf-8": None,
        "/noai": "opted_out",
        "/other": None,
        "/tdm": "opted_out",
        "/to-file": "bad_url",
        "/to-nowhere": "bad_url",
        "/absent": "not_found",
    }
    assert server.asked("/403") == 1  # it would not change


def test_opt_outs_may_be_left_unhonoured(server: Loopback, tmp_path: Path):
    server.routes = {"/noai": answer(headers={"X-Robots-Tag": "noai"})}
    assert reasons([server.url("/noai")], tmp_path, config(honour_opt_outs=False)) == [None]


# --- servers that misbehave -------------------------------------------------------------------------------


async def _stall(_writer: asyncio.StreamWriter, _request: Request) -> None:
    await asyncio.sleep(30)


async def _stall_in_body(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
    await asyncio.sleep(30)


async def _trickle(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _reset(writer: asyncio.StreamWriter, _request: Request) -> None:
    linger = b"\x01\0\0\0\0\0\0\0"  # on, 0 s: closing sends a reset
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


async def _promise_more(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
    writer.close()


async def _send_more(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsome and more")
    writer.close()


async def _send_without_end(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(10_000):
        writer.write(bytes(1 << 20))
        await writer.drain()


async def _promise_10_gb(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
    await _send_without_end(writer, request)


async def _talk_nonsense(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"220 smtp.example ESMTP\r\n\r\n")
    writer.close()


async def _headers_without_end(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(1000):
        writer.write(b"x" * 10_000)
        await writer.drain()


async def _bad_chunks(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnot a chunk\r\n")
    writer.close()


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (_stall, "timeout"),
        (_stall_in_body, "timeout"),
        (_trickle, "timeout"),
        (_reset, "connection_failed"),
        (_promise_more, "connection_failed"),
        (_send_without_end, "file_too_large"),
        (_promise_10_gb, "file_too_large"),
        (_talk_nonsense, "http_error"),
        (_headers_without_end, "http_error"),
        (_bad_chunks, "http_error"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_server_that_misbehaves(server: Loopback, tmp_path: Path, handler: object, reason: str):
    server.routes = {"/x": handler, "/ok": answer()}  # type: ignore[dict-item]
    settings = config(num_retries=0, total_s=0.8, max_image_bytes=5_000_000)
    assert reasons([server.url("/x"), server.url("/ok")], tmp_path, settings) == [reason, None]


def test_more_than_was_promised_is_not_taken(server: Loopback, tmp_path: Path):
    server.routes = {"/x": _send_more}
    (fetched,) = get([server.url("/x")], tmp_path, config(num_retries=0))
    assert fetched in (Fetched(b"some", None), Fetched(None, "http_error"))


def test_nobody_listens(tmp_path: Path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert reasons([f"http://127.0.0.1:{port}/x"], tmp_path) == ["connection_failed"]


def test_redirects_are_followed_and_rings_are_not(server: Loopback, tmp_path: Path):
    server.routes = {
        "/a": answer(b"", 301, {"Location": "b"}),
        "/b": answer(b"", 307, {"Location": "/c"}),
        "/c": answer(),
        "/ring": answer(b"", 302, {"Location": "/ring"}),
        "/no-location": answer(b"", 302),
    }
    urls = [server.url(path) for path in ("/a", "/ring", "/no-location")]
    assert reasons(urls, tmp_path) == [None, "http_error", "http_error"]
    assert server.asked("/ring") == 6
    assert reasons([server.url("/a")], tmp_path, config(max_redirects=1)) == ["http_error"]


# --- retries ----------------------------------------------------------------------------------------------


def _then(*handlers: object):
    left = list(handlers)

    async def handle(writer: asyncio.StreamWriter, request: Request) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(writer, request)  # type: ignore[operator]

    return handle


def test_a_failure_that_passes_is_tried_again(server: Loopback, tmp_path: Path):
    server.routes = {
        "/busy": _then(answer(b"", 503), answer(b"", 429), answer()),
        "/reset": _then(_reset, answer()),
        "/stall": _then(_stall, answer()),
        "/never": answer(b"", 500),
    }
    paths = list(server.routes)
    assert reasons([server.url(p) for p in paths], tmp_path) == [None, None, None, "http_error"]
    assert server.asked("/never") == 3


def test_retry_after_is_honoured_up_to_a_cap(server: Loopback, tmp_path: Path):
    server.routes = {
        "/soon": _then(answer(b"", 429, {"Retry-After": "1"}), answer()),
        "/late": answer(b"", 503, {"Retry-After": "3600"}),
    }
    assert reasons([server.url("/soon")], tmp_path) == [None]
    first, second = (r.time_s for r in server.requests)
    assert 0.95 <= second - first < 2
    start = time.monotonic()
    settings = config(max_retry_after_s=0.1)
    assert reasons([server.url("/late")], tmp_path, settings) == ["http_error"]
    assert time.monotonic() - start < 1
    assert server.asked("/late") == 1


def test_a_dead_host_is_given_up(server: Loopback, tmp_path: Path):
    server.routes = {"/": answer(), **{f"/{i}": _reset for i in range(100)}}
    urls = [server.url(f"/{i}", "dead.example") for i in range(100)]
    settings = config(give_up_host_after=5, num_retries=0, max_requests_per_host=2)
    found = reasons([*urls, server.url("/")], tmp_path, settings, resolver=FakeResolver())
    assert found == ["connection_failed"] * 100 + [None]
    # Two may be under way when the fifth fails, and aiohttp asks twice where a connection breaks at once.
    assert len(server.requests) <= 1 + 2 * 6


# --- limits -----------------------------------------------------------------------------------------------


def test_the_limits_of_hosts_hold(server: Loopback, tmp_path: Path):
    server.routes = {"/": answer(wait_s=0.02)}
    hosts = ["a.example", "b.example", "c.example"]
    urls = [server.url("/", host) for _ in range(20) for host in hosts]
    settings = config(max_requests_per_host=3, max_requests=8)
    assert reasons(urls, tmp_path, settings, resolver=FakeResolver()) == [None] * 60
    assert all(server.most_at_once[host] == 3 for host in hosts)
    assert sum(server.most_at_once.values()) <= 9


def test_the_rate_of_a_host_holds(server: Loopback, tmp_path: Path):
    server.routes = {"/": answer()}
    urls = [server.url("/", "a.example") for _ in range(10)]
    start = time.monotonic()
    settings = config(host_requests_per_s=20)
    assert reasons(urls, tmp_path, settings, resolver=FakeResolver()) == [None] * 10
    # However late a request arrives, none can have been sent before its time.
    times = [request.time_s - start for request in server.requests]
    assert all(time_s > 0.05 * number - 0.005 for number, time_s in enumerate(times))


def test_processes_share_the_limits_of_a_host(server: Loopback, tmp_path: Path):
    """Two processes with one folder stay below what one may."""
    import multiprocessing

    server.routes = {"/": answer(wait_s=0.02)}
    settings = config(max_requests_per_host=2)
    context = multiprocessing.get_context("fork")
    twins = [
        context.Process(target=reasons, args=([server.url("/")] * 15, tmp_path, settings)) for _ in range(2)
    ]
    for twin in twins:
        twin.start()
    for twin in twins:
        twin.join()
    assert [twin.exitcode for twin in twins] == [0, 0]
    assert len(server.requests) == 30
    assert server.most_at_once["127.0.0.1"] == 2


# --- robots.txt -------------------------------------------------------------------------------------------


def test_robots_txt_is_asked_for_once_and_obeyed(server: Loopback, tmp_path: Path):
    rules = b"User-agent: *\nDisallow: /\n\nUser-agent: lvd-image-downloader\nDisallow: /private/\n"
    server.routes = {"/robots.txt": answer(rules), "/a": answer(), "/private/b": answer()}
    urls = [server.url(path) for path in ("/a", "/private/b", "/a")]
    assert reasons(urls, tmp_path, config(honour_robots=True)) == [None, "opted_out", None]
    assert server.asked("/robots.txt") == 1
    assert server.asked("/private/b") == 0


def test_a_redirect_into_what_robots_txt_forbids(server: Loopback, tmp_path: Path):
    server.routes = {
        "b.example/robots.txt": answer(b"User-agent: *\nDisallow: /x"),
        "/a": answer(b"", 302, {"Location": server.url("/x", "b.example")}),
        "/x": answer(),
    }
    found = reasons(
        [server.url("/a", "a.example")], tmp_path, config(honour_robots=True), resolver=FakeResolver()
    )
    assert found == ["opted_out"]
    assert server.asked("/x") == 0


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (answer(b"", 404), None),
        (answer(b"", 403), None),
        (answer(b"", 500), "http_error"),
        (answer(b"", 429), "http_error"),
        (_reset, "connection_failed"),
        (_stall, "timeout"),
        (answer(b"Disallow: /\n" + b"#" * 600_000 + b"\nUser-agent: *\nDisallow: /\n"), None),
        (answer(b"", 301, {"Location": "/elsewhere"}), "opted_out"),
        (answer(b"", 301, {"Location": "http://169.254.169.254/"}), "http_error"),
    ],
)
def test_a_robots_txt_that_cannot_be_had(
    server: Loopback, tmp_path: Path, handler: object, reason: str | None
):
    """RFC 9309, 2.3.1: no file allows all, a server that fails allows nothing."""
    server.routes = {
        "/robots.txt": handler,  # type: ignore[dict-item]
        "/elsewhere": answer(b"User-agent: *\nDisallow: /"),
        "/a": answer(),
    }
    settings = config(honour_robots=True, num_retries=1)
    assert reasons([server.url("/a")] * 2, tmp_path, settings) == [reason] * 2
    assert server.asked("/a") == (2 if reason is None else 0)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("X-Gzip", gzip.compress), ("deflate", zlib.compress)],
)
def test_a_robots_txt_that_comes_packed_is_read(
    server: Loopback, tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes]
):
    rules = pack(b"User-agent: *\nDisallow: /private/\n" + b"#" * (100 << 20))  # and a bomb
    server.routes = {
        "/robots.txt": answer(rules, headers={"Content-Encoding": encoding}),
        "/a": answer(),
        "/private/b": answer(),
        "/packed": answer(pack(PICTURE), headers={"Content-Encoding": encoding}),
    }
    urls = [server.url(path) for path in ("/a", "/private/b", "/packed")]
    tracemalloc.start()
    found = reasons(urls, tmp_path, config(honour_robots=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [None, "opted_out", None]
    assert peak < 8 << 20
    server.routes["/robots.txt"] = answer(b"no gzip", headers={"Content-Encoding": encoding})
    assert reasons(urls[:1], tmp_path, config(honour_robots=True)) == ["http_error"]


def test_a_blocked_domain_is_not_asked(server: Loopback, tmp_path: Path):
    server.routes = {
        "/": answer(),
        "/to": answer(b"", 302, {"Location": server.url("/", "x.evil.example")}),
    }
    urls = [server.url("/", h) for h in ("evil.example", "a.b.evil.example", "notevil.example")]
    urls.append(server.url("/to", "a.example"))
    found = reasons(urls, tmp_path, blocked=frozenset(["evil.example"]), resolver=FakeResolver())
    assert found == ["blocked_domain", "blocked_domain", None, "blocked_domain"]
    assert {request.host for request in server.requests} == {"notevil.example", "a.example"}


def test_memory_does_not_grow_with_the_images(server: Loopback, tmp_path: Path):
    """Nothing is left behind either: no temporary file, no thread of ours."""
    server.routes = {"/": answer(bytes(3 << 20))}
    threads = threading.active_count()
    found = get([server.url("/")] * 4, tmp_path)
    assert [len(fetched.data or b"") for fetched in found] == [3 << 20] * 4
    assert {path.name for path in tmp_path.iterdir()} == {"hosts"}
    assert threading.active_count() <= threads


def _brotli(data: bytes) -> bytes:
    return pa.Codec("brotli").compress(data, asbytes=True)


def _zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def _raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


PACKINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "upper case": ("X-GZIP", gzip.compress),
    "two members": ("gzip", lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:])),
    "deflate": ("deflate", zlib.compress),
    "without a header": ("deflate", _raw_deflate),
    "brotli": ("br", _brotli),
    "zstd": ("zstd", _zstd),
    "twice": ("gzip, br", lambda data: _brotli(gzip.compress(data))),
    "and identity": ("identity, gzip", gzip.compress),
}


@pytest.mark.parametrize("name", PACKINGS)
def test_a_picture_that_is_sent_packed(server: Loopback, tmp_path: Path, name: str):
    coding, pack = PACKINGS[name]
    headers = {"Content-Encoding": coding}
    large = PICTURE * 2000  # goes through a file
    server.routes = {
        "/a": answer(pack(PICTURE), headers=headers),
        "/large": answer(pack(large), headers=headers),
        "/cut": answer(pack(PICTURE)[:-9], headers=headers),
        "/odd": answer(PICTURE, headers=headers),
    }
    found = get([server.url(path) for path in server.routes], tmp_path)
    assert [fetched.reason for fetched in found] == [None] * 4
    assert found[0].data == PICTURE
    assert found[1].data == large
    assert found[3].data == PICTURE


@pytest.mark.parametrize("name", PACKINGS)
def test_a_packed_bomb_is_unpacked_up_to_the_limit(server: Loopback, tmp_path: Path, name: str):
    coding, pack = PACKINGS[name]
    server.routes = {"/a": answer(pack(bytes(64 << 20)), headers={"Content-Encoding": coding})}
    tracemalloc.start()
    found = reasons([server.url("/a")], tmp_path, config(max_image_bytes=8 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["file_too_large"]
    assert peak < 16 << 20


def test_a_packed_picture_of_no_size_of_its_own(server: Loopback, tmp_path: Path):
    server.routes = {"/a": answer(gzip.compress(b"") * 100_000, headers={"Content-Encoding": "gzip"})}
    assert get([server.url("/a")], tmp_path) == [Fetched(b"", None)]


def test_no_more_is_fetched_than_has_room(server: Loopback, tmp_path: Path):
    """The first URLs, whatever the pace of each: the spool would fill the disk."""
    for i in range(20):
        server.routes[f"/{i}"] = answer(bytes([i]) * 100, wait_s=0.05 if i % 3 == 0 else 0)
    urls = [server.url(f"/{i}") for i in range(20)]
    found = get(urls, tmp_path, config(max_image_bytes=200), max_bytes=1000)
    # After eight images there are 800 bytes and room for one of 200; after nine there is none.
    assert found == [Fetched(bytes([i]) * 100, None) for i in range(9)] + [Fetched(None, "unit_full")] * 11
    assert {request.path for request in server.requests} == {f"/{i}" for i in range(9)}
    assert reasons(urls[:2], tmp_path, config(max_image_bytes=200), max_bytes=199) == ["unit_full"] * 2
    assert get([], tmp_path, max_bytes=0) == []
