"""PCA hash: the signs of a descriptor along the 64 leading directions of a sample.

Everything that decides a bit is arithmetic without rounding, so that a bit does not depend on the library,
its threads or the batch. The fit rounds descriptors to whole multiples of 2^-15: sums of products over up to
2^20 rows are then multiples of 2^-30 below 2^21, which fp64 holds. The directions are rounded to multiples
of 2^-20: a product with an fp16 number is a multiple of 2^-44, and every partial sum lies below 2. What is
left to the library is the eigenvector itself, whose last bits the rounding takes away.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float64, UInt64
from numpy import ndarray

from curation.errors import ConfigError
from curation.search.collapse import equal_vectors

NUM_BITS = 64
MAX_SAMPLE_ROWS = 1 << 20

_SAMPLE_GRID = 2.0**15
_DIRECTION_GRID = 2.0**20
_OFFSET_GRID = 2.0**44
_CHUNK_ROWS = 4096
# Of the largest eigenvalue: a direction along which the sample varies less is rounding, and gives no bit.
_LEAST_VARIANCE = 1e-9


@dataclass(frozen=True)
class PcaHash:
    """What was fitted: bit k of a vector x is <x, directions[k]> > offsets[k].

    directions: unit rows, zeros for bits that the sample has no direction for. offsets: those of the mean.
    """

    directions: Float64[ndarray, "64 d"]
    offsets: Float64[ndarray, " 64"]


def fit_pca_hash(sample: Float16[ndarray, "n d"]) -> PcaHash:
    """Find the leading directions of a sample of descriptors.

    Args:
        sample: fp16 (n, d), unit rows; rows of zeros are no descriptors and left out, and of equal rows one
            counts, so that a placeholder that is a tenth of a pool is not a tenth of the sample.

    Returns:
        PcaHash; of each direction the entry of largest magnitude (the first of equal ones) is positive.

    Raises:
        ConfigError: more rows than sums are exact for.

    Source: arXiv:2304.07193, §3 names a PCA hash and leaves it open; here: one sign for each direction.
    """
    if len(sample) > MAX_SAMPLE_ROWS:
        raise ConfigError(
            "The sample for the PCA hash is too large",
            got=f"{len(sample)} rows",
            expected=f"at most {MAX_SAMPLE_ROWS}",
        )
    sample = sample[equal_vectors(sample).first]
    sample = sample[sample.any(axis=1)]
    directions, offsets = np.zeros((NUM_BITS, sample.shape[1])), np.zeros(NUM_BITS)
    if not len(sample):
        return PcaHash(directions, offsets)
    mean, covariance = _moments(sample)
    values, vectors = np.linalg.eigh(covariance)
    leading = np.argsort(-values, kind="stable")[:NUM_BITS]
    leading = leading[values[leading] > _LEAST_VARIANCE * max(values.max(), 0)]
    rounded = np.rint(vectors[:, leading].T * _DIRECTION_GRID) / _DIRECTION_GRID
    largest = np.abs(rounded).argmax(axis=1)
    signs = np.sign(rounded[np.arange(len(rounded)), largest])
    directions[: len(rounded)] = rounded * signs[:, None]
    offsets = np.rint(directions @ (mean / _SAMPLE_GRID) * _OFFSET_GRID) / _OFFSET_GRID
    return PcaHash(directions, offsets)


def _moments(sample: Float16[ndarray, "n d"]) -> tuple[Float64[ndarray, " d"], Float64[ndarray, "d d"]]:
    """Mean and covariance of rows in units of the grid, the sums exact."""
    dim = sample.shape[1]
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for start in range(0, len(sample), _CHUNK_ROWS):
        whole = np.rint(sample[start : start + _CHUNK_ROWS].astype(np.float64) * _SAMPLE_GRID)
        total += whole.sum(axis=0)
        products += whole.T @ whole
    mean = total / len(sample)
    return mean, products / len(sample) - np.outer(mean, mean)


def pca_hash(vectors: Float16[ndarray, "n d"], fitted: PcaHash) -> UInt64[ndarray, " n"]:
    """Hash descriptors; bit 63, the highest, is the leading direction's.

    Args:
        vectors: fp16 (n, d), unit rows. What a row of zeros gets means nothing.
        fitted: from `fit_pca_hash`.

    Returns:
        uint64 (n,); a row's hash does not depend on the other rows.
    """
    hashes = np.empty(len(vectors), np.uint64)
    for start in range(0, len(vectors), _CHUNK_ROWS):
        chunk = vectors[start : start + _CHUNK_ROWS].astype(np.float64)
        bits = chunk @ fitted.directions.T > fitted.offsets
        hashes[start : start + len(chunk)] = np.packbits(bits, axis=1).view(">u8").ravel()
    return hashes
