"""Reads the ranges of remote files before they are asked for: many requests at once, neighbours in one.

A store answers after tens of milliseconds whatever is asked, so what counts is how many requests are under
way, and how few are made. The ranges are known beforehand, in the order in which they will be read. They are
cut into windows; within a window, ranges of one file that lie close together are fetched by one request.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from curation import storage
from curation.ranges import RangeReader

# Fetched, or being fetched, and not read yet (bytes).
MAX_AHEAD_BYTES = 256 << 20
# A request that takes 50 ms to be answered carries 5 MB in the same time at 100 MB/s: what lies between two
# ranges is fetched along up to a fifth of that, and a request ends at about twice that.
MAX_GAP_BYTES = 1 << 20
MAX_SPAN_BYTES = 8 << 20
NUM_REQUESTS = 32
_WINDOW_BYTES = 32 << 20


class Range(NamedTuple):
    """Some bytes of a file."""

    path: str
    offset: int
    num_bytes: int


class _Span:
    """One request: the range that it asks for, those that it serves, and its bytes once they are there."""

    __slots__ = ("future", "num_left", "ranges", "whole")

    def __init__(self, ranges: list[Range], end: int) -> None:
        first = ranges[0]
        self.whole = Range(first.path, first.offset, end - first.offset)
        self.ranges = ranges
        self.num_left = len(ranges)
        self.future: Future[bytes] | None = None


class ReadAhead(RangeReader):
    """A reader that knows what it will be asked for. Local files, and ranges not announced, it just reads.

    Args:
        ranges: what will be read, each once, about in this order. One that is announced and never read holds
            its bytes to the end.
        max_bytes: fetched and not read yet, at most; a range that is asked for is fetched all the same.
    """

    def __init__(
        self,
        ranges: Iterable[Range],
        *,
        max_bytes: int = MAX_AHEAD_BYTES,
        num_requests: int = NUM_REQUESTS,
    ) -> None:
        super().__init__()
        self._max_bytes, self._ahead_bytes = max_bytes, 0
        self._waiting: dict[Range, _Span] = {}
        remote = dict.fromkeys(r for r in ranges if r.num_bytes and not storage.is_local(r.path))
        spans = list(_spans(list(remote)))
        for span in spans:
            self._waiting.update(dict.fromkeys(span.ranges, span))
        self._to_fetch = iter(spans)
        self._next: _Span | None = next(self._to_fetch, None)
        self._state = threading.Lock()
        self._pool = ThreadPoolExecutor(num_requests, "read-ahead") if spans else None
        with self._state:
            self._fetch_more()

    def read(self, path: str, offset: int, num_bytes: int) -> bytes:
        """Exactly `num_bytes` from `offset`, fetched already where it was announced.

        Raises:
            OSError: when the file cannot be read, or ends before the range does.
        """
        wanted = Range(path, offset, num_bytes)
        with self._state:
            span = self._waiting.pop(wanted, None)
            if span is not None and span.future is None:
                self._fetch(span)
        if span is None:
            return super().read(path, offset, num_bytes)
        data = self._bytes_of(span)
        with self._state:
            span.num_left -= 1
            if span.num_left == 0:
                self._ahead_bytes -= span.whole.num_bytes
                span.future = None
            self._fetch_more()
        if data is None:
            return super().read(path, offset, num_bytes)
        start = offset - span.whole.offset
        return data[start : start + num_bytes]

    def _bytes_of(self, span: _Span) -> bytes | None:
        """What a request brought; None where it failed: the fault may be that of another range of it."""
        assert span.future is not None
        try:
            return span.future.result()
        except OSError:
            return None

    def _fetch_more(self) -> None:
        """Start requests up to the limit; the lock is held."""
        while self._next is not None:
            if self._next.future is None and self._next.num_left:
                if self._ahead_bytes and self._ahead_bytes + self._next.whole.num_bytes > self._max_bytes:
                    return
                self._fetch(self._next)
            self._next = next(self._to_fetch, None)

    def _fetch(self, span: _Span) -> None:
        assert self._pool is not None, "closed"
        self._ahead_bytes += span.whole.num_bytes
        span.future = self._pool.submit(super().read, *span.whole)

    def close(self) -> None:
        """End what is under way, and forget what was fetched."""
        with self._state:
            self._next = None
            self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        super().close()


def _spans(ranges: Sequence[Range]) -> Iterator[_Span]:
    """Requests in about the order of use: whatever the order within a file, a window holds few bytes."""
    for window in _windows(ranges):
        group: list[Range] = []
        end = 0
        for one in sorted(window):
            stop = max(end, one.offset + one.num_bytes) if group else one.offset + one.num_bytes
            is_near = group and one.path == group[0].path and one.offset - end <= MAX_GAP_BYTES
            if group and not (is_near and stop - group[0].offset <= MAX_SPAN_BYTES):
                yield _Span(group, end)
                group, stop = [], one.offset + one.num_bytes
            group.append(one)
            end = stop
        if group:
            yield _Span(group, end)


def _windows(ranges: Sequence[Range]) -> Iterator[Sequence[Range]]:
    start, held = 0, 0
    for stop, one in enumerate(ranges):
        if held and held + one.num_bytes > _WINDOW_BYTES:
            yield ranges[start:stop]
            start, held = stop, 0
        held += one.num_bytes
    yield ranges[start:]
