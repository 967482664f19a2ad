"""What is asked of FAISS: its threads, and a range search that names each pair once."""

from typing import get_args

import numpy as np
import pytest

from curation.search import installed
from curation.search.backend import Backend, Device
from curation.search.installed import load_faiss, range_search, set_search_threads


def test_threads_are_those_of_every_search() -> None:
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    try:
        set_search_threads(3)
        assert faiss.omp_get_max_threads() == 3
    finally:
        set_search_threads(before)


@pytest.mark.parametrize("same", [False, True])
def test_tiles_name_each_pair_once(same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_TILE_ROWS", 5)
    monkeypatch.setattr(installed, "_TILE_COLUMNS", 8)
    rng = np.random.default_rng(0)
    b = rng.standard_normal((30, 4)).astype(np.float32)
    a = b if same else rng.standard_normal((21, 4)).astype(np.float32)
    found = range_search(a, b, make_index=lambda: load_faiss().IndexFlatIP(4), radius=1.0, same=same)
    pairs = [pair for tile in found for pair in zip(*(values.tolist() for values in tile), strict=True)]
    score = a @ b.T
    expected = np.argwhere(np.triu(score > 1, 1) if same else score > 1).tolist()
    assert sorted([i, j] for i, j, _ in pairs) == expected
    assert [value for *_, value in pairs] == pytest.approx([score[i, j] for i, j, _ in pairs], abs=1e-5)


def test_what_has_a_gpu_is_on_a_device() -> None:
    assert set(get_args(Backend)) & set(get_args(Device)) == {"cuda"}
