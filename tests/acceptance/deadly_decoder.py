"""`lvd` with a decoder that dies, or hangs, of marked files.

    python deadly_decoder.py abort|hang run CONFIG …

It stands in for a decoder with a flaw. The product knows nothing of it: the step's `load` is replaced by one
that replaces the decoder in whatever process the work is done. Its folder must be on PYTHONPATH.
"""

import os
import sys
import time
from functools import partial
from typing import Any

from curation.describe import look
from curation.pictures.decode import Decoded, decode
from pipelines.cli import main as cli
from pipelines.engine.step import Work
from pipelines.engine.watchdog import Watchdog
from pipelines.stages.describe import describe as stage

DEADLY = b"This file is the death of its decoder."
HANG_S = 4.0  # instead of two minutes, for a test that ends today

load_as_ever = stage._load


def deadly_decode(data: bytes, *, how: str, **settings: Any) -> Decoded:
    """Decode as ever, but for the marked files."""
    if data.startswith(DEADLY):
        if how == "abort":
            os.abort()
        time.sleep(3600)
    return decode(data, **settings)


def deadly_load(how: str, *settings: Any) -> Work:
    """The work of `describe` with the deadly decoder in it."""
    look.decode = partial(deadly_decode, how=how)
    stage.Watchdog = partial(Watchdog, HANG_S)  # type: ignore[assignment,misc]
    return load_as_ever(*settings)


def main() -> int:
    """The command line."""
    how, *arguments = sys.argv[1:]
    stage._load = partial(deadly_load, how)
    return cli.main(arguments)


if __name__ == "__main__":
    # Under its own name, so that worker processes find what they are handed.
    import deadly_decoder

    sys.exit(deadly_decoder.main())
