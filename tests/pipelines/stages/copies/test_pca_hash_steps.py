"""Hashes of descriptors as a run makes them: those of the library, and none where nothing is known."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from part_files import attempt_at, make_part, published, unit_rows

from curation import storage
from curation.dedup.pca_hash import fit_pca_hash, pca_hash
from curation.errors import ConfigError
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner
from pipelines.rows.parts import Part, read
from pipelines.stages.copies.pca_hash import (
    FIT,
    HASHES,
    FitSettings,
    FitTask,
    HashTask,
    _load_fit,
    _load_hashes,
    hash_descriptors,
    read_fit,
)

NO_VECTOR, POOR = 4, 11


def parts_of(folder: Path, vectors: np.ndarray, *roles: str) -> tuple[Part, ...]:
    size = len(vectors) // len(roles)
    cuts = [slice(start, start + size) for start in range(0, len(vectors), size)]
    bits = np.where(np.arange(len(vectors)) == POOR, 3, 64)
    return tuple(
        make_part(
            folder, number, offset=cut.start, vectors=vectors[cut], role=role, pool=role,
            certain_bits=bits[cut].tolist(),
        )
        for number, (cut, role) in enumerate(zip(cuts, roles, strict=True))
    )  # fmt: skip


@pytest.fixture
def vectors() -> np.ndarray:
    rows = unit_rows(0, 300, dim=80, num_centres=30)
    rows[NO_VECTOR] = 0
    return rows


def test_directions_are_fitted_on_what_may_be_drawn(tmp_path: Path, vectors: np.ndarray) -> None:
    """Neither on evaluation images nor on pictures of poor hash."""
    parts = parts_of(tmp_path, vectors, "curated", "uncurated", "holdout")
    facts = _load_fit(FitSettings(1000, 0))(attempt_at(FitTask(parts), tmp_path / "fit"))
    assert facts == {"num_sampled": 199, "num_directions": 64}
    found = read_fit(published(tmp_path / "fit" / FIT))
    expected = fit_pca_hash(np.delete(vectors[:200], POOR, axis=0))
    np.testing.assert_array_equal(found.directions, expected.directions)
    np.testing.assert_array_equal(found.offsets, expected.offsets)


def test_a_picture_of_which_nothing_is_known_has_no_hash(tmp_path: Path, vectors: np.ndarray) -> None:
    [part] = parts_of(tmp_path, vectors, "uncurated")
    fitted = fit_pca_hash(vectors)
    fit = published(tmp_path / FIT, np.concatenate([fitted.directions, fitted.offsets[:, None]], axis=1))
    facts = _load_hashes(None)(attempt_at(HashTask(part, fit), tmp_path / "out"))  # type: ignore[arg-type]
    column = storage.read_table(str(tmp_path / "out" / HASHES))["pca_hash"]
    assert np.flatnonzero(column.is_null().to_numpy()).tolist() == [NO_VECTOR, POOR]
    assert facts == {"num_rows": 300, "num_hashed": 298}
    has = column.is_valid().to_numpy()
    assert column.drop_null().to_pylist() == pca_hash(vectors[has], fitted).tolist()


def config_with(**radii: int | None) -> Any:
    dedup = SimpleNamespace(pca_radius=radii.get("dedup"), pca_sample_rows=1000)
    return SimpleNamespace(dedup=dedup, decontaminate=SimpleNamespace(pca_radius=radii.get("leaks")), seed=0)


def test_only_what_is_asked_for_is_hashed(tmp_path: Path, vectors: np.ndarray) -> None:
    parts = parts_of(tmp_path, vectors, "curated", "uncurated")
    runner = Runner(str(tmp_path / "run"), LocalExecutor(), Progress(quiet=True))
    assert hash_descriptors(runner, config_with(), parts) == parts
    assert not runner.receipts
    for asked in ("dedup", "leaks"):
        hashed = hash_descriptors(runner, config_with(**{asked: 3}), parts)
        assert [len(read(part.pca_hashes)) for part in hashed] == [150, 150]


def test_too_few_directions_are_refused(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, unit_rows(0, 100, dim=20), "uncurated")
    with pytest.raises(ConfigError, match="20 directions in 99 descriptors of 20 numbers"):
        _load_fit(FitSettings(1000, 0))(attempt_at(FitTask(parts), tmp_path / "fit"))
