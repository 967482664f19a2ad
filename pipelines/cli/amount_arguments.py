"""Amounts with their units, as arguments: bytes and times."""

import argparse
import math
import re

_AMOUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][0-9]+)?)\s*([A-Za-z]+)\s*")
_BYTES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def bytes_argument(text: str) -> float:
    """A number of bytes out of `24GB` or `22.5GiB`."""
    return _amount(text, _BYTES, "a size with its unit, such as 24GB")


def seconds_argument(text: str) -> float:
    """A number of seconds out of `12h` or `3d`."""
    return _amount(text, _SECONDS, "a time with its unit, such as 12h or 3d")


def _amount(text: str, units: dict[str, float], expected: str) -> float:
    found = _AMOUNT.fullmatch(text)
    unit = found and next((size for name, size in units.items() if name.lower() == found[2].lower()), None)
    number = float(found[1]) * unit if found and unit else 0.0
    if number <= 0 or not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r}: {expected} is expected (units: {', '.join(units)})")
    return number
