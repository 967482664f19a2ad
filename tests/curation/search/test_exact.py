"""The cosine join against a plain fp64 product, on both backends and in every arithmetic."""

import numpy as np
import pytest
import torch
from arithmetic import ARITHMETICS, forced
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError, IntegrityError
from curation.search import exact, installed, product
from curation.search.codes import encode
from curation.search.edges import Pairs, limit_edges
from curation.search.exact import enough_leading
from curation.search.product import multiply

ENGINES = [("torch", "int8"), ("torch", "bf16"), ("torch", "fp16"), ("torch", "fp32"), ("faiss", None)]


def cosine_pairs(a: np.ndarray, b: np.ndarray, *, dtype: str | None = None, **more: object) -> Pairs:
    """The join, in an arithmetic that this machine need not have."""
    with forced(dtype):
        return exact.cosine_pairs(a, b, dtype=dtype, **more)


def unit_vectors(rng: np.random.Generator, num_rows: int, *, dim: int, spread: float = 1.0) -> np.ndarray:
    """Clustered unit vectors: a spread of 0 makes all of a cluster equal."""
    centres = rng.standard_normal((max(num_rows // 8, 1), dim))
    rows = centres[rng.integers(len(centres), size=num_rows)] + spread * rng.standard_normal((num_rows, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def reference(a: np.ndarray, b: np.ndarray, *, threshold: float, same: bool) -> Pairs:
    scores = a.astype(np.float64) @ b.astype(np.float64).T
    match = (scores >= threshold) & a.any(axis=1)[:, None] & b.any(axis=1)
    i, j = np.nonzero(np.triu(match, 1) if same else match)
    return Pairs(i, j, scores[i, j])


def assert_equal(got: Pairs, expected: Pairs) -> None:
    np.testing.assert_array_equal(got.a, expected.a)
    np.testing.assert_array_equal(got.b, expected.b)
    np.testing.assert_array_equal(got.score, expected.score)  # to the last bit: scores are exact


@pytest.mark.parametrize(("backend", "dtype"), ENGINES)
def test_by_hand(backend, dtype):
    rows = np.array([[1, 0], [0.6, 0.8], [0, 0], [0.6, 0.8], [-1, 0]], np.float16)
    score = float(np.float16(0.6))
    pairs = cosine_pairs(rows, rows, threshold=score, same=True, backend=backend, dtype=dtype)
    assert list(zip(pairs.a, pairs.b, strict=True)) == [(0, 1), (0, 3), (1, 3)]
    assert pairs.score[:2].tolist() == [score, score]
    assert pairs.score[2] == score**2 + float(np.float16(0.8)) ** 2
    between = cosine_pairs(rows[:1], rows[2:], threshold=-1.0, same=False, backend=backend, dtype=dtype)
    assert between.b.tolist() == [1, 2]  # never the row of zeros


@pytest.mark.parametrize(("backend", "dtype"), ENGINES)
@pytest.mark.parametrize("same", [True, False])
def test_equals_the_full_product(backend, dtype, same, monkeypatch):
    monkeypatch.setattr(exact, "TILE_ROWS", 64)
    monkeypatch.setattr(exact, "TILE_COLUMNS", 192)
    monkeypatch.setattr(installed, "_TILE_COLUMNS", 160)
    rng = np.random.default_rng(0)
    a = unit_vectors(rng, 500, dim=48, spread=0.4)
    a[[3, 77]] = 0
    b = a if same else unit_vectors(rng, 333, dim=48, spread=0.4)
    for threshold in (0.2, 0.85):
        got = cosine_pairs(a, b, threshold=threshold, same=same, backend=backend, dtype=dtype)
        expected = reference(a, b, threshold=threshold, same=same)
        assert len(expected.a) > 50 or not same
        assert_equal(got, expected)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.sampled_from([1, 2, 7, 64, 384]),
    spread=st.sampled_from([0.0, 0.05, 1.0]),
    outlier=st.sampled_from([0.0, 30.0]),
    engine=st.sampled_from(ENGINES),
)
def test_no_pair_is_missed(seed, dim, spread, outlier, engine):
    """The threshold is a score that occurs, so that a bound too small by anything would lose pairs."""
    rng = np.random.default_rng(seed)
    rows = unit_vectors(rng, 40, dim=dim, spread=spread).astype(np.float64)
    rows[:, 0] += outlier * rng.random()  # one dimension rules, as in some embeddings
    rows = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)).astype(np.float16)
    scores = rows.astype(np.float64) @ rows.astype(np.float64).T
    threshold = float(np.clip(rng.choice(scores[np.triu_indices(40, 1)]), -1, 1))
    backend, dtype = engine
    got = cosine_pairs(rows, rows, threshold=threshold, same=True, backend=backend, dtype=dtype)
    assert_equal(got, reference(rows, rows, threshold=threshold, same=True))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_scores_are_exact_in_any_order(seed):
    """Products of fp16 numbers add up without rounding in fp64: shuffled dimensions give the same bits."""
    rng = np.random.default_rng(seed)
    a, b = (unit_vectors(rng, 10, dim=384) for _ in range(2))
    order = rng.permutation(384)
    every = np.arange(10)
    scores = product.exact_scores(a, b, rows=every, columns=every)
    shuffled = product.exact_scores(a[:, order], b[:, order], rows=every, columns=every)
    np.testing.assert_array_equal(scores, shuffled)
    np.testing.assert_array_equal(scores, np.diag(a.astype(np.float64) @ b.astype(np.float64).T))


def join_of_blocks(rows: np.ndarray, *, cuts: list[int], threshold: float, limit: int | None) -> Pairs:
    """What a run does: one call for each pair of blocks, and the results put together."""
    starts = [0, *sorted(cuts)]
    ends = [*starts[1:], len(rows)]
    parts = []
    for left in range(len(starts)):
        for right in range(left, len(starts)):
            a, b = rows[starts[left] : ends[left]], rows[starts[right] : ends[right]]
            pairs = cosine_pairs(a, b, threshold=threshold, same=left == right, max_edges_per_row=limit)
            parts.append((pairs.a + starts[left], pairs.b + starts[right], pairs.score))
    a, b, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    if limit is not None:
        keep = limit_edges(a, b, score, max_edges_per_row=limit)
        a, b, score = a[keep], b[keep], score[keep]
    order = np.lexsort((b, a))
    return Pairs(a[order], b[order], score[order])


@pytest.mark.usefixtures("arithmetic")
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 90), max_size=4),
    limit=st.sampled_from([None, 1, 2, 5]),
    spread=st.sampled_from([0.0, 0.3]),
)
def test_union_of_blocks_is_the_whole(seed, cuts, limit, spread):
    rng = np.random.default_rng(seed)
    rows = unit_vectors(rng, 90, dim=16, spread=spread)
    rows[rng.integers(90, size=3)] = 0
    whole = cosine_pairs(rows, rows, threshold=0.8, same=True, max_edges_per_row=limit)
    assert_equal(join_of_blocks(rows, cuts=cuts, threshold=0.8, limit=limit), whole)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_hubs_are_tamed_and_reported(backend):
    rng = np.random.default_rng(1)
    rows = unit_vectors(rng, 120, dim=32)
    rows[20:] = rows[20]  # a placeholder, a hundred times
    pairs = cosine_pairs(rows, rows, threshold=0.99, same=True, backend=backend, max_edges_per_row=3)
    everything = reference(rows, rows, threshold=0.99, same=True)
    assert pairs.num_hub_rows == 100
    assert pairs.num_dropped + len(pairs.a) == len(everything.a) == 100 * 99 // 2
    assert len(pairs.a) <= 3 * 100
    # Equal scores are named by the smallest row, so the hub stays one component: a star.
    assert set(pairs.b[np.isin(pairs.a, [20, 21, 22])]) | {20} == set(range(20, 120))


@pytest.mark.usefixtures("arithmetic")
def test_collector_limits_on_the_way(monkeypatch):
    monkeypatch.setattr(exact, "TILE_ROWS", 16)
    monkeypatch.setattr(exact, "TILE_COLUMNS", 16)
    monkeypatch.setattr("curation.search.edges._FIRST_LIMIT", 40)
    rng = np.random.default_rng(2)
    rows = unit_vectors(rng, 150, dim=8, spread=0.2)
    full = reference(rows, rows, threshold=0.7, same=True)
    keep = limit_edges(full.a, full.b, full.score, max_edges_per_row=2)
    got = cosine_pairs(rows, rows, threshold=0.7, same=True, max_edges_per_row=2)
    assert_equal(got, Pairs(full.a[keep], full.b[keep], full.score[keep]))
    assert got.num_dropped == int((~keep).sum()) > 0
    assert got.num_hub_rows == int((np.bincount(np.concatenate([full.a, full.b])) > 2).sum())


@pytest.mark.usefixtures("arithmetic")
def test_nothing_to_compare():
    none = np.zeros((0, 8), np.float16)
    zeros = np.zeros((5, 8), np.float16)
    for backend in ("torch", "faiss"):
        assert len(cosine_pairs(none, none, threshold=0.5, same=True, backend=backend).a) == 0
        assert len(cosine_pairs(zeros, none, threshold=0.5, same=False, backend=backend).a) == 0
        assert len(cosine_pairs(zeros, zeros, threshold=-1.0, same=True, backend=backend).a) == 0


@pytest.mark.parametrize("dim", [1, 2, 9])
@pytest.mark.parametrize(("backend", "dtype"), ENGINES)
def test_one_row_and_one_column(backend, dtype, dim):
    rng = np.random.default_rng(4)
    one, many = unit_vectors(rng, 1, dim=dim), unit_vectors(rng, 40, dim=dim)
    for a, b in ((one, one), (one, many), (many, one), (one, many[:0]), (many[:0], one)):
        got = cosine_pairs(a, b, threshold=0.1, same=False, backend=backend, dtype=dtype)
        assert_equal(got, reference(a, b, threshold=0.1, same=False))
    assert len(cosine_pairs(one, one, threshold=-1.0, same=True, backend=backend, dtype=dtype).a) == 0


@pytest.mark.parametrize(("backend", "dtype"), ENGINES)
def test_reads_memory_maps(tmp_path, backend, dtype):
    rows = unit_vectors(np.random.default_rng(3), 64, dim=16, spread=0.3)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    got = cosine_pairs(mapped[:32], mapped[32:], threshold=0.8, same=False, backend=backend, dtype=dtype)
    assert_equal(got, reference(rows[:32], rows[32:], threshold=0.8, same=False))


def test_refuses_nonsense():
    rows = np.eye(4, dtype=np.float16)
    with pytest.raises(ConfigError, match="threshold"):
        cosine_pairs(rows, rows, threshold=1.5, same=True)
    with pytest.raises(ConfigError, match="max_edges_per_row"):
        cosine_pairs(rows, rows, threshold=0.5, same=True, max_edges_per_row=0)
    for bad in (np.nan, np.inf, 100):
        broken = rows.copy()
        broken[2, 1] = bad
        with pytest.raises(IntegrityError, match="row 2"):
            cosine_pairs(broken, broken, threshold=0.5, same=True)


def test_without_a_gpu_the_backend_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: tests/gpu/check_vectors.py compares it with the CPU")
    rows = np.eye(4, dtype=np.float16)
    with pytest.raises(ConfigError, match="No GPU to join on"):
        cosine_pairs(rows, rows, threshold=0.5, same=True, backend="cuda")


@pytest.mark.parametrize("same", [True, False])
def test_leading_numbers_lose_no_pair(same, monkeypatch):
    rng = np.random.default_rng(11)
    vectors = rng.standard_normal((300, 256)).astype(np.float32)
    vectors[:100, :64] *= 0.02  # nearly all of these lies in what is left out
    vectors[100:150] = vectors[:50] + 0.2 * rng.standard_normal((50, 256))
    vectors[200:220] = vectors[180:200]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    other = vectors if same else vectors[::-1].copy()
    expected = cosine_pairs(vectors, other, threshold=0.7, same=same)
    assert len(expected.a) > 60
    monkeypatch.setattr(exact, "TILE_ROWS", 32)
    monkeypatch.setattr(exact, "TILE_COLUMNS", 48)
    for num in (64, 128, 192):
        monkeypatch.setattr(exact, "enough_leading", lambda *_, num=num, **__: num)
        for dtype in ARITHMETICS:
            got = cosine_pairs(vectors, other, threshold=0.7, same=same, dtype=dtype)
            assert got.a.tolist() == expected.a.tolist()
            assert got.b.tolist() == expected.b.tolist()
            assert got.score.tolist() == expected.score.tolist()


def test_how_many_numbers_are_enough(monkeypatch):
    rng = np.random.default_rng(12)
    vectors = rng.standard_normal((3000, 384)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    assert enough_leading(vectors, vectors, threshold=0.9) is None  # a small join asks nothing
    monkeypatch.setattr(exact, "_MIN_PAIRS_TO_ASK", 1)
    assert enough_leading(vectors, vectors, threshold=0.99) == 64
    assert enough_leading(vectors, vectors, threshold=0.9) == 96
    assert enough_leading(vectors, vectors, threshold=0.3) is None
    alike = vectors[:1] + 0.01 * vectors
    assert enough_leading(alike, alike, threshold=0.95) is None


def test_a_lower_precision_that_others_set_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in what multiplies, as few CPUs have a lower precision for fp32."""
    rows = torch.ones(3, 4)
    expected = multiply(rows, rows, out=torch.empty(9))

    def lowered(*_args: object, **_more: object) -> torch.Tensor:
        raise AssertionError("torch would multiply in bf16")

    monkeypatch.setattr(torch, "mm", lowered)
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        assert torch.equal(multiply(rows, rows, out=torch.empty(9)), expected)
        assert settings.fp32_precision == "bf16"
    finally:
        settings.fp32_precision = before


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_is_bf16_whatever_multiplies_it(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    monkeypatch.setattr(product, "has_bf16", lambda: has_bf16)
    rows = unit_vectors(np.random.default_rng(0), 200, dim=48)
    codes = encode(rows, dtype="bf16")
    assert codes.values.dtype == (torch.bfloat16 if has_bf16 else torch.float32)
    assert torch.equal(codes.values.float(), torch.from_numpy(rows).bfloat16().float())
    got = cosine_pairs(rows, rows, threshold=0.5, same=True, dtype="bf16")
    assert_equal(got, reference(rows, rows, threshold=0.5, same=True))
