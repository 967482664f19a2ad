"""Amounts with units, by hand."""

import argparse

import pytest

from pipelines.cli.amount_arguments import bytes_argument, seconds_argument


@pytest.mark.parametrize(
    ("text", "expected"), [("24GB", 24e9), ("22.5 GiB", 22.5 * 2**30), ("80gb", 80e9), ("1e3MB", 1e9)]
)
def test_bytes(text: str, expected: float) -> None:
    assert bytes_argument(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("90min", 5400), ("12h", 43200), ("3d", 259200), ("1w", 604800)]
)
def test_seconds(text: str, expected: float) -> None:
    assert seconds_argument(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e999GB", "24", "24GBs"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 24GB"):
        bytes_argument(text)
