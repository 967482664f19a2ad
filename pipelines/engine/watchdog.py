"""Ends a worker in which a decoder hangs, so that the executor can find out which image did it."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Legal images decode in well under a second; storage and models have time-outs of their own.
HANG_S = 60.0
HANG_EXIT_CODE = 87


class Watchdog:
    """Ends this process when one of the calls that it guards takes longer than `hang_s`.

    Nothing gentler works: a decoder that hangs inside C code hears no exception.
    """

    def __init__(self, hang_s: float = HANG_S) -> None:
        self._hang_s = hang_s
        self._since: dict[int, float] = {}  # row → when its decoding began
        self._done = threading.Event()

    def __enter__(self) -> "Watchdog":
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()

    @contextmanager
    def guard(self, row: int) -> Iterator[None]:
        """Watch what happens inside the `with`; from any thread."""
        self._since[row] = time.monotonic()
        try:
            yield
        finally:
            del self._since[row]

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self._hang_s / 4)):
            if any(time.monotonic() - since > self._hang_s for since in list(self._since.values())):
                with suppress(OSError):  # who cannot be told must not keep it from ending
                    os.write(2, b"lvd: a decoder hangs, and its worker ends; the image is looked for\n")
                os._exit(HANG_EXIT_CODE)
