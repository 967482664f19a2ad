"""One request: ask, look at the headers, and take the body up to a limit."""

import asyncio
import email.utils
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import BinaryIO, cast

import aiohttp
from yarl import URL

from curation.disk_errors import lack
from curation.ingest.web.addresses import CheckedResolver, ForbiddenAddressError, Network, checked_socket
from curation.ingest.web.content_coding import CodingError, codings_of, decode
from curation.ingest.web.download_config import DownloadConfig
from curation.ingest.web.opt_out import opts_out
from curation.printed import redact_url

_REDIRECTS = (301, 302, 303, 307, 308)
# Answers that another try may better (RFC 9110 §15, RFC 6585 §4).
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_IN_MEMORY_BYTES = 1 << 20  # a larger body goes through a file: hundreds are under way at once
_MAX_HEADER_BYTES = 16 << 10
# Looking up a name blocks a thread, and dead name servers block it for long.
_RESOLVER_THREADS = 64


@dataclass(eq=False)
class FetchError(Exception):
    """A request that brought no image."""

    reason: str  # one of those of `describe`
    _: KW_ONLY
    may_pass: bool = False  # the same request may succeed a moment later
    retry_after_s: float | None = None  # after so many seconds the host wants to be asked again
    of_host: bool = False  # the host could not be reached, whatever was asked of it
    status: int | None = None  # of the answer, where there was one


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What a server answered: a redirect, or a body."""

    location: str | None
    body: BinaryIO | None  # at its end; the caller closes it


def open_session(
    config: DownloadConfig, allowed: Sequence[Network], resolver: aiohttp.abc.AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """A session that connects to allowed addresses alone, keeps no cookies, and reads no proxy's settings."""
    if resolver is None:
        pool = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolver")
        asyncio.get_running_loop().set_default_executor(pool)
        resolver = aiohttp.ThreadedResolver()
    connector = aiohttp.TCPConnector(
        limit=0,  # `HostLimits` has them
        resolver=CheckedResolver(resolver, allowed),
        socket_factory=checked_socket(allowed),
        ttl_dns_cache=300,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(
            total=config.total_s, sock_connect=config.connect_s, sock_read=config.read_s
        ),
        headers={
            "User-Agent": config.user_agent,
            "Accept": "image/*,*/*;q=0.1",
            # What is sent packed would have to be unpacked, and may be a bomb.
            "Accept-Encoding": "identity",
        },
        auto_decompress=False,
        trust_env=False,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    )


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """What is taken of a body.

    Args:
        cuts: a larger body is cut there; otherwise it is refused as `file_too_large`.
        takes_odd: whether a body that is not in the coding that it claims, or in one that nobody knows, is
            taken as it is; otherwise it is refused as `http_error`.
    """

    max_bytes: int
    cuts: bool
    spool_dir: Path
    takes_odd: bool = True


async def ask(
    session: aiohttp.ClientSession, url: URL, *, limit: BodyLimit, product: str | None = None
) -> HttpAnswer:
    """Make one request and follow no redirect.

    Args:
        url: that `read_url` has let through.
        product: the crawler's product token, where opt-outs in the headers are to be honoured.

    Raises:
        FetchError: when there is no image to be had.
        OSError: when the spool cannot be written; that is no fault of the URL.
        ExecutorError: when this process may open no more connections; nor is that.
    """
    with _failures_told(url):
        async with session.get(url, allow_redirects=False) as response:
            if product is not None:
                tags = response.headers.getall("X-Robots-Tag", ())
                if opts_out(response.headers, robots_tags=tags, product=product):
                    response.close()
                    raise FetchError("opted_out")
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location is not None:
                response.close()
                return HttpAnswer(location, None)
            _check_status(response)
            codings = codings_of(response.headers.get("Content-Encoding", ""))
            if codings is None and not limit.takes_odd:
                response.close()
                raise FetchError("http_error", status=response.status)
            body = await _read_body(response, limit)
            return HttpAnswer(None, _decoded(body, codings, limit) if codings else body)


@contextmanager
def _failures_told(url: URL) -> Iterator[None]:
    """Turn what aiohttp raises within into a `FetchError`."""
    try:
        yield
    except TimeoutError as error:
        raise FetchError("timeout", may_pass=True, of_host=True) from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, ForbiddenAddressError):
            raise FetchError("forbidden_address") from error
        if (lacking := lack(error, redact_url(str(url)))) is not None:
            raise lacking from error
        raise FetchError("connection_failed", may_pass=True, of_host=True) from error
    except aiohttp.InvalidURL as error:
        raise FetchError("bad_url") from error
    except aiohttp.ClientResponseError as error:  # an answer that is no HTTP
        raise FetchError("http_error") from error
    except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
        raise FetchError("connection_failed", may_pass=True, of_host=True) from error


def _check_status(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status == 200:
        return
    response.close()
    retry_after_s = _retry_after_s(response) if status in _MAY_PASS else None
    reason = "not_found" if status in (404, 410) else "http_error"
    raise FetchError(reason, may_pass=status in _MAY_PASS, retry_after_s=retry_after_s, status=status)


def _decoded(sent: BinaryIO, codings: Sequence[str], limit: BodyLimit) -> BinaryIO:
    """What was coded, though that was not asked for: some servers pack everything."""
    body = _spool(limit)
    try:
        sent.seek(0)
        decode(sent.read, codings, body.write, limit=limit.max_bytes + 1)
    except CodingError as error:
        body.close()
        if limit.takes_odd:
            return sent
        sent.close()
        raise FetchError("http_error", status=200) from error
    except BaseException:
        body.close()
        sent.close()
        raise
    sent.close()
    if body.tell() > limit.max_bytes:
        if not limit.cuts:
            body.close()
            raise FetchError("file_too_large")
        body.seek(limit.max_bytes)
        body.truncate()
    return body


def _spool(limit: BodyLimit) -> BinaryIO:
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(limit.spool_dir)))


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    """Seconds until the host wants to be asked again: a number, or a date (RFC 9110 §10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    date = email.utils.parsedate_tz(value)
    try:
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None
    except (ValueError, OverflowError):
        return None


async def _read_body(response: aiohttp.ClientResponse, limit: BodyLimit) -> BinaryIO:
    if (response.content_length or 0) > limit.max_bytes and not limit.cuts:
        response.close()
        raise FetchError("file_too_large")
    body = _spool(limit)
    left = limit.max_bytes
    try:
        async for chunk in response.content.iter_any():
            if len(chunk) > left and not limit.cuts:
                raise FetchError("file_too_large")
            body.write(chunk[:left])
            left -= len(chunk)
            if left < 0:
                break
    except BaseException:
        body.close()
        raise
    finally:
        if not response.content.at_eof():
            response.close()  # the rest is not waited for
    return body
