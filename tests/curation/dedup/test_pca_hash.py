"""The PCA hash: directions by hand and against an SVD, bits that nothing can change."""

from fractions import Fraction

import numpy as np
import pytest

from curation.dedup import pca_hash as module
from curation.dedup.pca_hash import PcaHash, fit_pca_hash, pca_hash
from curation.errors import ConfigError


def descriptors(num: int, dim: int, *, seed: int) -> np.ndarray:
    """Unit rows whose variance falls from direction to direction."""
    rng = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    rows = rng.standard_normal((num, dim)) * 0.95 ** np.arange(dim) @ turned + 0.3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def test_by_hand():
    rows = np.array([[1, 0], [0, 1], [0.8, 0.6], [0.6, 0.8]], np.float16)
    fitted = fit_pca_hash(rows)
    # The rows differ along (1, -1), then along (1, 1); of two equal magnitudes the first is positive.
    assert np.allclose(fitted.directions[:2], np.array([[1, -1], [1, 1]]) / np.sqrt(2), atol=2e-6)
    assert not fitted.directions[2:].any()
    top = [int(code) >> 62 for code in pca_hash(rows, fitted)]
    assert top == [0b10, 0b00, 0b11, 0b01]
    assert not any(int(code) & (2**62 - 1) for code in pca_hash(rows, fitted))


def test_directions_are_the_covariance_eigenvectors():
    rows = descriptors(3000, 96, seed=1)
    fitted = fit_pca_hash(rows)
    exact = rows.astype(np.float64)
    _, _, reference = np.linalg.svd(exact - exact.mean(axis=0), full_matrices=False)
    agreement = np.abs((fitted.directions * reference[:64]).sum(axis=1))
    assert agreement[:32].min() > 0.999
    assert np.allclose(fitted.offsets, fitted.directions @ exact.mean(axis=0), atol=1e-5)
    ones = np.unpackbits(pca_hash(rows, fitted).view(np.uint8)).mean()
    assert 0.45 < ones < 0.55


def test_bits_are_exact():
    rows = descriptors(40, 33, seed=2)
    fitted = fit_pca_hash(rows)
    for row, code in zip(rows[:10].tolist(), pca_hash(rows, fitted)[:10].tolist(), strict=True):
        for k in range(64):
            direction = fitted.directions[k].tolist()
            exact = sum(Fraction(x) * Fraction(y) for x, y in zip(row, direction, strict=True))
            assert (code >> (63 - k)) & 1 == (exact > Fraction(float(fitted.offsets[k])))


def test_neither_chunks_nor_the_order_of_rows_change_a_bit(monkeypatch):
    rows = descriptors(700, 80, seed=3)
    fitted = fit_pca_hash(rows)
    codes = pca_hash(rows, fitted)
    monkeypatch.setattr(module, "_CHUNK_ROWS", 7)
    again = fit_pca_hash(rows[np.random.default_rng(0).permutation(700)])
    assert np.array_equal(again.directions, fitted.directions)
    assert np.array_equal(again.offsets, fitted.offsets)
    assert np.array_equal(pca_hash(rows, fitted), codes)
    assert np.array_equal(pca_hash(rows[5:6], fitted), codes[5:6])


def test_copies_are_near_and_others_far():
    rows = descriptors(2000, 128, seed=4)
    noise = np.random.default_rng(5).standard_normal(rows.shape) * 0.002
    moved = rows.astype(np.float64) + noise
    copies = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float16)
    fitted = fit_pca_hash(rows)
    codes, copied = pca_hash(rows, fitted), pca_hash(copies, fitted)
    assert np.bitwise_count(codes ^ copied).mean() < 3
    assert np.bitwise_count(codes ^ np.roll(copied, 1)).mean() > 25


def test_rows_without_a_descriptor_and_equal_ones_do_not_count():
    rows = descriptors(300, 20, seed=6)
    padded = np.concatenate([np.zeros((50, 20), np.float16), rows, np.repeat(rows[:1], 40, axis=0)])
    fitted, alone = fit_pca_hash(padded), fit_pca_hash(rows)
    assert np.array_equal(fitted.directions, alone.directions)
    nothing = fit_pca_hash(padded[:50])
    assert pca_hash(rows[:3], nothing).tolist() == [0, 0, 0]
    assert isinstance(nothing, PcaHash)


def test_too_large_a_sample(monkeypatch):
    monkeypatch.setattr(module, "MAX_SAMPLE_ROWS", 10)
    with pytest.raises(ConfigError, match="at most 10"):
        fit_pca_hash(descriptors(11, 4, seed=0))
