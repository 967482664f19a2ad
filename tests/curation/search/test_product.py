"""What multiplies, and what chooses it: empty selections, one row or column, and CPUs other than this one."""

import numpy as np
import pytest
import torch
from arithmetic import ARITHMETICS, forced

from curation.cluster.assignment import Desk, search_for
from curation.errors import ConfigError
from curation.search.codes import Codes, encode
from curation.search.exact import cosine_pairs, propose
from curation.search.product import (
    buffer_for,
    fastest_dtype,
    held_in,
    multiply,
    multiply_fp32,
)
from curation.search.topk import top_k


def codes_of(num_rows: int, dim: int, *, seed: int, dtype: str) -> Codes:
    rows = np.random.default_rng(seed).standard_normal((num_rows, dim))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return encode(rows, dtype=dtype, one_scale=True)


@pytest.mark.parametrize("dim", [1, 2, 33])
@pytest.mark.parametrize("num_columns", [0, 1, 2, 19])
@pytest.mark.parametrize("num_rows", [0, 1, 2, 19])
def test_products_of_any_selection(num_rows: int, num_columns: int, dim: int, arithmetic: str) -> None:
    rows = codes_of(num_rows, dim, seed=0, dtype=arithmetic)
    columns = codes_of(num_columns, dim, seed=1, dtype=arithmetic)
    out = buffer_for(arithmetic, num_products=num_rows * num_columns)
    expected = rows.values.double() @ columns.values.double().T
    loss = {"int8": 0.0, "bf16": 2.0**-8, "fp32": 2.0**-23}[arithmetic] * max(dim, 2)
    found = [multiply(rows.values, columns.values, out=out)]
    if arithmetic == "fp32":
        found.append(multiply_fp32(rows.values, columns.values))
    for product in found:
        assert product.shape == (num_rows, num_columns)
        assert bool(((product.double() - expected).abs() <= loss).all())


@pytest.mark.parametrize(("num_rows", "num_columns"), [(0, 0), (0, 1), (0, 5), (1, 0), (5, 0)])
def test_nothing_is_near_nothing(num_rows: int, num_columns: int, arithmetic: str) -> None:
    rows = codes_of(num_rows, 8, seed=0, dtype=arithmetic)
    columns = codes_of(num_columns, 8, seed=1, dtype=arithmetic)
    assert not list(propose(rows, columns, threshold=0.1, buffer=buffer_for(arithmetic, num_products=64)))


def cpu_that_has(monkeypatch: pytest.MonkeyPatch, *, vnni: bool, avx512_bf16: bool, amx: bool) -> None:
    """What torch says of the CPU."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.fixture
def own_choice(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The product's own choice, also where a run of tests forces another."""
    from curation import cpu
    from curation.search import product

    monkeypatch.setattr(product, "has_int8", cpu.has_int8)
    monkeypatch.setattr(product, "has_bf16", cpu.has_bf16)
    return monkeypatch


@pytest.mark.parametrize(
    ("vnni", "avx512_bf16", "amx", "chosen"),
    [
        (False, False, False, "fp32"),  # Zen 2 and 3, and whatever has AVX2 alone
        (True, False, False, "int8"),
        (True, True, True, "int8"),
        (False, True, False, "bf16"),
        (False, False, True, "bf16"),
    ],
)
def test_the_choice_follows_the_cpu(
    vnni: bool, avx512_bf16: bool, amx: bool, chosen: str, own_choice: pytest.MonkeyPatch
) -> None:
    cpu_that_has(own_choice, vnni=vnni, avx512_bf16=avx512_bf16, amx=amx)
    assert fastest_dtype() == chosen
    assert held_in("bf16") == (torch.bfloat16 if avx512_bf16 or amx else torch.float32)
    assert fastest_dtype("cuda") == "fp16"


def test_a_cpu_without_vnni_and_bf16_does_all_in_fp32(own_choice: pytest.MonkeyPatch) -> None:
    cpu_that_has(own_choice, vnni=False, avx512_bf16=False, amx=False)

    def must_not(*_args: object, **_more: object) -> torch.Tensor:
        raise AssertionError("this CPU's int8 products may saturate")

    own_choice.setattr(torch, "_int_mm", must_not)
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((300, 24))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    a, b = np.nonzero(np.triu(exact >= 0.5, 1))
    for dtype in (None, "bf16", "fp32"):
        pairs = cosine_pairs(rows, rows, threshold=0.5, same=True, dtype=dtype)
        assert (pairs.a.tolist(), pairs.b.tolist()) == (a.tolist(), b.tolist())
        best = top_k(rows[:9], [(np.arange(300), rows)], k=1, dtype=dtype)
        assert best.index[:, 0].tolist() == exact[:9].argmax(axis=1).tolist()
        centroids = rows[:20].astype(np.float32)
        desk = Desk(search_for(centroids, dtype=dtype))
        found = desk.assign(rows, desk.encode(rows)).cluster
        assert found.tolist() == (rows.astype(np.float64) @ centroids.T).argmax(axis=1).tolist()
    for refused in (
        lambda: cosine_pairs(rows, rows, threshold=0.5, same=True, dtype="int8"),
        lambda: top_k(rows, [], k=1, dtype="int8"),
        lambda: Desk(search_for(rows[:2].astype(np.float32), dtype="int8")),
    ):
        with pytest.raises(ConfigError, match=r"may saturate.*Got: a CPU without VNNI"):
            refused()


def test_forced_arithmetic_is_what_is_chosen() -> None:
    for arithmetic in ARITHMETICS:
        with forced(arithmetic):
            assert fastest_dtype() == arithmetic
            assert held_in("bf16") == (torch.bfloat16 if arithmetic == "bf16" else torch.float32)
