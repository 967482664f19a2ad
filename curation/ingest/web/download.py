"""Fetches the images of a list of URLs: politely, within limits, and with a reason for each that fails."""

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

from aiohttp.abc import AbstractResolver
from yarl import URL

from curation.ingest.web.addresses import parse_networks
from curation.ingest.web.download_config import MAX_UNIT_BYTES, DownloadConfig
from curation.ingest.web.fetch import BodyLimit, FetchError, HttpAnswer, ask, open_session
from curation.ingest.web.politeness import HostLimits
from curation.ingest.web.robots import (
    ALLOW_ALL,
    MAX_ROBOTS_BYTES,
    Rules,
    may_ask,
    parse_robots,
    product_token,
)
from curation.ingest.web.web_url import RefusedUrlError, read_url


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one URL: the image's bytes, or the reason why there are none."""

    data: bytes | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Downloads:
    """What downloads need beside URLs and their config.

    Args:
        folder: for temporary files, and for the limits of hosts: processes that are given the same folder
            share them.
        blocked: domains that are not asked, of `read_blocked`.
        seed: of the random part of the waits between retries.
        resolver: looks names up; None: the system's.
        max_bytes: of all images together: those after the first that might pass it are not asked for.
    """

    folder: Path
    blocked: frozenset[str] = frozenset()
    seed: int = 0
    resolver: AbstractResolver | None = None
    max_bytes: int = MAX_UNIT_BYTES


def download(urls: Sequence[str], config: DownloadConfig, setting: Downloads) -> Iterator[Fetched]:
    """Fetch the images of some URLs, many at once, and give them out in the order of the URLs.

    No URL raises: each that fails has its reason. URLs are taken up in order, and only while the largest
    image would still fit into `max_bytes`; the others are `unit_full`, whatever the pace of the network. The
    bytes pass through a file, so what is held in memory does not grow with the number of URLs.

    Raises:
        OSError: when the folder cannot be written.
    """
    limits = HostLimits(
        setting.folder / "hosts",
        max_requests=config.max_requests,
        max_per_host=config.max_requests_per_host,
        per_s=config.host_requests_per_s,
        give_up_after=config.give_up_host_after,
    )
    with contextlib.closing(limits), tempfile.TemporaryFile(dir=setting.folder) as spool:
        places = asyncio.run(_download_all(urls, _Downloader(config, setting, limits), spool))
        for place in places:
            if isinstance(place, str):
                yield Fetched(None, place)
            else:
                spool.seek(place.offset)
                yield Fetched(spool.read(place.num_bytes), None)
    for _ in urls[len(places) :]:
        yield Fetched(None, "unit_full")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the bytes of an image lie in the spool."""

    offset: int
    num_bytes: int


async def _download_all(
    urls: Sequence[str], downloader: "_Downloader", spool: BinaryIO
) -> list[_Place | str]:
    """The places of the first URLs: of all, or of those before the first that is not asked for."""
    tasks: list[asyncio.Task[_Place | str]] = []
    num_done, freed, has_failed = 0, asyncio.Event(), False

    def end(task: asyncio.Task[_Place | str]) -> None:
        nonlocal num_done, has_failed
        num_done += 1
        has_failed = has_failed or task.cancelled() or task.exception() is not None
        freed.set()

    async with downloader:
        for url in urls:
            # What is under way may all be as large as it gets.
            while num_done < len(tasks) and not downloader.has_room(spool, len(tasks) - num_done):
                freed.clear()
                await freed.wait()
            if has_failed or not downloader.has_room(spool, 0):
                break
            tasks.append(asyncio.create_task(downloader.image(url, spool)))
            tasks[-1].add_done_callback(end)
        return await asyncio.gather(*tasks)


class _Downloader:
    """The way of one URL through checks, redirects and retries; holds what all URLs share."""

    def __init__(self, config: DownloadConfig, setting: Downloads, limits: HostLimits) -> None:
        self._config = config
        self._setting = setting
        self._limits = limits
        self._allowed = parse_networks(config.allow_private)
        self._product = product_token(config.user_agent)
        self._robots: dict[URL, asyncio.Task[Rules]] = {}

    async def __aenter__(self) -> None:
        self._session = open_session(self._config, self._allowed, self._setting.resolver)

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    def has_room(self, spool: BinaryIO, num_under_way: int) -> bool:
        """Whether the largest image still fits beside what was fetched and what is under way."""
        return spool.tell() + (num_under_way + 1) * self._config.max_image_bytes <= self._setting.max_bytes

    async def image(self, text: str, spool: BinaryIO) -> _Place | str:
        """Fetch one image into the spool; its place there, or a reason."""
        limit = BodyLimit(self._config.max_image_bytes, cuts=False, spool_dir=self._setting.folder)
        try:
            with await self._try_often(text, limit, is_image=True) as body:
                num_bytes = body.tell()
                body.seek(0)
                place = _Place(spool.tell(), num_bytes)
                shutil.copyfileobj(body, spool, 1 << 20)
                return place
        except (FetchError, RefusedUrlError) as error:
            return error.reason

    async def _try_often(self, text: str, limit: BodyLimit, *, is_image: bool) -> BinaryIO:
        """Follow a URL, and try again where the failure may pass."""
        for attempt in range(self._config.num_retries + 1):
            try:
                return await self._follow(text, limit, is_image=is_image)
            except FetchError as error:
                wait_s = self._wait_s(text, attempt, error.retry_after_s)
                is_last = attempt == self._config.num_retries
                is_too_long = error.retry_after_s and wait_s > self._config.max_retry_after_s
                if is_last or not error.may_pass or is_too_long:
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    def _wait_s(self, text: str, attempt: int, retry_after_s: float | None) -> float:
        """How long to wait before the next attempt: doubled each time, and not the same for all."""
        name = f"{self._setting.seed} {attempt} {text}".encode("utf-8", "replace")
        part = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "big") / 2**32
        return max(self._config.backoff_s * 2.0**attempt * (0.5 + part), retry_after_s or 0.0)

    async def _follow(self, text: str, limit: BodyLimit, *, is_image: bool) -> BinaryIO:
        """Follow redirects to a body; each URL on the way is checked as the first one is."""
        url = self._read(text)
        for _ in range(self._config.max_redirects + 1):
            if is_image and not await self._robots_allow(url):
                raise FetchError("opted_out")
            answer = await self._ask(url, limit, is_image=is_image)
            if answer.body is not None:
                return answer.body
            url = self._read(_joined(url, answer.location or ""))
        raise FetchError("http_error")  # a ring, or too long a chain

    def _read(self, text: str) -> URL:
        return read_url(text, allowed=self._allowed, blocked=self._setting.blocked)

    async def _ask(self, url: URL, limit: BodyLimit, *, is_image: bool) -> HttpAnswer:
        """Make one request in its host's turn, and learn from it how the host is."""
        host = url.raw_host or ""
        async with self._limits.turn(host):
            if reason := self._limits.given_up(host):
                raise FetchError(reason)
            product = self._product if is_image and self._config.honour_opt_outs else None
            try:
                answer = await ask(self._session, url, limit=limit, product=product)
            except FetchError as error:
                if error.of_host:
                    self._limits.note_failure(host, error.reason)
                else:
                    self._limits.note_answer(host)
                if error.retry_after_s:
                    self._limits.pause(host, min(error.retry_after_s, self._config.max_retry_after_s))
                raise
            self._limits.note_answer(host)
            return answer

    async def _robots_allow(self, url: URL) -> bool:
        """Whether a site's robots.txt allows a URL; it is asked for once, by the first that needs it."""
        if not self._config.honour_robots:
            return True
        origin = url.origin()
        if origin not in self._robots:
            self._robots[origin] = asyncio.create_task(self._fetch_rules(origin))
        return may_ask(await self._robots[origin], url.raw_path_qs)

    async def _fetch_rules(self, origin: URL) -> Rules:
        """RFC 9309 §2.3.1: no such file allows all; a site that cannot say what it allows is not asked.

        Raises:
            FetchError: the reason why robots.txt could not be had, which is then that of the site's images.
        """
        # Rules that cannot be read are none that allow everything.
        limit = BodyLimit(MAX_ROBOTS_BYTES, cuts=True, spool_dir=self._setting.folder, takes_odd=False)
        try:
            with await self._try_often(str(origin / "robots.txt"), limit, is_image=False) as body:
                body.seek(0)
                return parse_robots(body.read(), self._product)
        except RefusedUrlError as error:  # a redirect to where nobody may go
            raise FetchError("http_error") from error
        except FetchError as error:
            # 429 is a busy site and not one without rules.
            if error.status is not None and 400 <= error.status < 500 and not error.may_pass:
                return ALLOW_ALL
            raise FetchError(error.reason) from error


def _joined(url: URL, location: str) -> str:
    """Where a redirect leads; what cannot be joined is left for `read_url` to refuse."""
    try:
        return urljoin(str(url), location)
    except ValueError:
        return location
