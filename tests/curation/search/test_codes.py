"""Codes: no product is farther from the vectors' own than the bound says, in whatever arithmetic."""

import numpy as np
import pytest
import torch
from arithmetic import ARITHMETICS, forced

from curation.search.codes import Codes, encode, error_bound, tail_norms
from curation.search.product import buffer_for, multiply


def unit(num_rows: int, dim: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, dim)) * np.arange(1, dim + 1) ** -0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def exact_codes(codes: Codes, dim: int) -> np.ndarray:
    return codes.values[:, :dim].double().numpy() * codes.scale[:, None]


def test_by_hand() -> None:
    codes = encode(np.array([[0.5, -1], [0, 0]], np.float16), dtype="int8")
    assert codes.values.tolist() == [[64, -127], [0, 0]]
    assert codes.scale[0] == pytest.approx(1 / 127)
    assert codes.norm == pytest.approx([1.25**0.5, 0], abs=1e-6)
    assert codes.residual == pytest.approx([0.5 / 127, 0], abs=1e-5)
    assert not codes.tail.any()
    shared = encode(np.array([[0.5, -1], [0.25, 0]], np.float16), dtype="int8", one_scale=True)
    assert shared.values.tolist() == [[64, -127], [32, 0]]
    assert len(set(shared.scale)) == 1


@pytest.mark.parametrize("num_leading", [None, 40])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("dtype", ["int8", "bf16", "fp16", "fp32"])
def test_norms_are_those_of_the_codes_rounded_up(dtype: str, kind: type, num_leading: int | None) -> None:
    vectors = (unit(700, 64, seed=0).astype(np.float64) * 0.9).astype(kind)  # in fp32 no code is exact
    codes = encode(vectors, dtype=dtype, num_leading=num_leading)
    held = vectors[:, :num_leading].astype(np.float64)
    for found, rows in (
        (codes.norm, held),
        (codes.residual, held - exact_codes(codes, held.shape[1])),
        (tail_norms(vectors, 40), vectors[:, 40:].astype(np.float64)),
        (codes.tail, vectors[:, held.shape[1] :].astype(np.float64)),
    ):
        norm = np.linalg.norm(rows, axis=1)
        assert (found >= norm).all()
        assert found == pytest.approx(norm, rel=1e-2, abs=1e-8)


@pytest.mark.parametrize("num_leading", [None, 24])
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_no_product_is_beyond_the_bound(arithmetic: str, num_leading: int | None) -> None:
    a, b = unit(300, 48, seed=1), unit(200, 48, seed=2)
    b[:100] = a[:100]
    exact = a.astype(np.float64) @ b.astype(np.float64).T
    with forced(arithmetic):
        rows = encode(a, dtype=arithmetic, num_leading=num_leading)
        columns = encode(b, dtype=arithmetic, one_scale=True, num_leading=num_leading)
        out = buffer_for(arithmetic, num_products=300 * 200)
        products = multiply(rows.values, columns.values, out=out).double().numpy()
        bound = error_bound(rows, columns, held=out.dtype)
    apart = np.abs(products * rows.scale[:, None] * columns.scale[0] - exact).max(axis=1)
    assert (apart <= bound).all()
    assert bound.max() < (0.05 if num_leading is None else 0.6), "a bound that holds for being wide"


@pytest.mark.parametrize("dtype", ARITHMETICS)
def test_rows_are_taken_in_any_order(dtype: str) -> None:
    codes = encode(unit(9, 8, seed=3), dtype=dtype, num_leading=6)
    for rows in (slice(2, 5), np.array([7, 0, 0]), np.zeros(0, np.int64)):
        some = codes[rows]
        assert len(some) == len(codes.norm[rows])
        assert torch.equal(some.values, codes.values[torch.from_numpy(np.arange(9)[rows])])
        for name in ("scale", "norm", "residual", "tail"):
            np.testing.assert_array_equal(getattr(some, name), getattr(codes, name)[rows])


@pytest.mark.parametrize("one_scale", [False, True])
@pytest.mark.parametrize("dtype", ARITHMETICS)
@pytest.mark.parametrize(("num_rows", "dim"), [(0, 1), (0, 9), (1, 1), (1, 9)])
def test_few_rows_and_columns(num_rows: int, dim: int, dtype: str, one_scale: bool) -> None:
    codes = encode(np.ones((num_rows, dim), np.float16), dtype=dtype, one_scale=one_scale)
    assert codes.values.shape == (num_rows, max(dim, 2))
    np.testing.assert_allclose(exact_codes(codes, dim), np.ones((num_rows, dim)), rtol=1e-6)
    assert error_bound(codes, codes).shape == (num_rows,)
