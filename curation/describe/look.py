"""One look at an image: read, hash, decode, measure, render; many at once, given in the order of rows."""

import errno
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from curation.describe.faces import Boxes, FaceFinder, in_original
from curation.describe.miniature import MAKE_BELOW_BITS, make_miniature
from curation.describe.phash import certain_bits, grey32
from curation.describe.strokes import measure_ground
from curation.errors import ExecutorError, is_no_memory
from curation.pictures.decode import DecodeConfig, decode
from curation.pictures.views import View, render

MIN_SIDE_PX = 64  # a decoded short side that leaves the 32 px of the perceptual hash a clean downscale


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at an image gave."""

    reason: str | None
    sha256: bytes | None = None
    num_bytes: int = 0
    format: str | None = None
    width: int | None = None
    height: int | None = None
    warnings: tuple[str, ...] = ()
    grey: np.ndarray | None = None
    certain_bits: int | None = None
    miniature: bytes | None = None  # None where the hash knows enough
    ground: tuple[float, float] | None = None  # see `measure_ground`
    faces: Boxes | None = None  # in the original's pixels; None where none were looked for
    views: tuple[np.ndarray, ...] = ()
    read_error: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """Read, hash, decode, measure and render one row; runs in the threads."""

    read: Callable[[int], bytes]
    views: tuple[View, ...]
    config: DecodeConfig
    known: Mapping[int, str]
    guard: Callable[[int], AbstractContextManager[None]] | None
    faces: FaceFinder | None
    name: Callable[[int], str] = "row {}".format

    def __call__(self, row: int) -> Seen:
        try:
            return self._look(row)
        except Exception as error:
            if not is_no_memory(error):
                raise
            raise ExecutorError(
                f"There is no memory to read and decode an image: {self.name(row)}",
                got=str(error) or type(error).__name__,
                expected=f"room for as many as {self.config.max_pixels:,} pixels in every thread",
                remedy="Set describe.decode_threads lower, or let the process have more memory (ulimit -v), "
                "and run the same command again: it goes on where it was. Pictures of more pixels than a "
                "lower describe.decode.max_pixels are rejected",
            ) from error

    def _look(self, row: int) -> Seen:
        if row in self.known:
            return Seen(self.known[row])
        try:
            data = self.read(row)
        except OSError as error:
            reason = "source_changed" if error.errno == errno.ESTALE else "unreadable"
            return Seen(reason, read_error=f"{type(error).__name__}: {error}")
        sha256 = hashlib.sha256(data).digest()
        with self.guard(row) if self.guard is not None else nullcontext():
            decoded = decode(data, need_side_px=self._need_side_px(), config=self.config)
        seen = Seen(
            decoded.reason,
            sha256,
            len(data),
            decoded.format,
            decoded.width,
            decoded.height,
            decoded.warnings,
        )
        return seen if decoded.pixels is None else self._measured(seen, decoded.pixels)

    def _need_side_px(self) -> int:
        sides = [MIN_SIDE_PX, *(view.need_side_px for view in self.views)]
        return max(sides if self.faces is None else [*sides, self.faces.need_side_px])

    def _measured(self, seen: Seen, pixels: UInt8[np.ndarray, "h w 3"]) -> Seen:
        rendered = {view: render(pixels, view) for view in self.views}
        grey = grey32(pixels)
        num_certain = int(certain_bits(grey[None])[0])
        return replace(
            seen,
            grey=grey,
            certain_bits=num_certain,
            miniature=make_miniature(pixels) if num_certain < MAKE_BELOW_BITS else None,
            ground=measure_ground(pixels),
            views=tuple(rendered[view] for view in self.views),
            faces=self._find_faces(seen, pixels),
        )

    def _find_faces(self, seen: Seen, pixels: UInt8[np.ndarray, "h w 3"]) -> Boxes | None:
        if self.faces is None:
            return None
        assert seen.width is not None and seen.height is not None, "a decoded picture has a size"  # noqa: PT018
        found_in = (pixels.shape[1], pixels.shape[0])
        return in_original(self.faces.find(pixels), found_in=found_in, size=(seen.width, seen.height))


def in_order(num_rows: int, look: Look, *, threads: int, ahead: int) -> Iterator[Seen]:
    """Every row's look in row order, at most `ahead` rows decoded or in work at once."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        waiting: deque[Future[Seen]] = deque()
        for row in range(num_rows):
            waiting.append(pool.submit(look, row))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
