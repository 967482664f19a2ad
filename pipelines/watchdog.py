"""Ends a worker that hangs, so that the executor can find out which image did it."""

import os
import threading
import time
from collections.abc import Callable

# A worker that has not got on for so long is taken to hang. Legal images decode in well under a second.
HANG_S = 120.0
HANG_EXIT_CODE = 87


class Watchdog:
    """Ends this process when the work inside the `with` has not ticked for `hang_s`.

    Nothing gentler works: a decoder that hangs inside C code hears no exception.
    """

    def __init__(self, hang_s: float = HANG_S) -> None:
        self._hang_s = hang_s
        self._last = time.monotonic()
        self._done = threading.Event()

    def __enter__(self) -> Callable[[int], None]:
        threading.Thread(target=self._watch, daemon=True).start()
        return self._tick

    def __exit__(self, *exc: object) -> None:
        self._done.set()

    def _tick(self, _row: int) -> None:
        self._last = time.monotonic()

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self._hang_s / 4)):
            if time.monotonic() - self._last > self._hang_s:
                os.write(
                    2, b"lvd: a worker hangs, most likely in one image, and ends; a rerun finds which\n"
                )
                os._exit(HANG_EXIT_CODE)
