"""Runs of equal values in sorted arrays."""

import numpy as np
from jaxtyping import Int, Int32, Int64


def run_starts(values: Int[np.ndarray, "n"]) -> Int64[np.ndarray, "r"]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.diff(values, prepend=values[:1] - 1))


def place_in_run(values: Int32[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Each element's place within its run of equal values."""
    starts = run_starts(values)
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
