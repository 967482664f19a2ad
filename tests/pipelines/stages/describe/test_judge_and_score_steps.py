"""The steps judge and score: what they hand on of a part, and what their outputs hang on."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from curation import storage
from curation.describe.filters import judge
from curation.schema import DESCRIBED, VERDICTS
from pipelines.config.run_config import RunConfig, validate
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner, StopHereError
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, read
from pipelines.stages.describe.judge import judge_parts
from pipelines.stages.describe.score import score_parts

DIM = 4
WEIGHT = np.array([[1.0, -2.0, 0.5, 0.0]], np.float32)


def published(path: Path) -> FileRef:
    data = path.read_bytes()
    return FileRef(str(path), len(data), hashlib.sha256(data).hexdigest())


def part_of(folder: Path, number: int, sizes: list[int], offset: int = 0) -> Part:
    """A part of square pictures of some sizes, and vectors of them."""
    rows = [
        {
            "sha256": bytes([size]) * 32, "num_bytes": 1, "format": "PNG", "phash": 0, "warnings": [],
            "width": size, "height": size, "pixel_std": 30.0, "uniform_share": 0.4, "stroke_share": 0.1,
            "has_embedding": True, "reason": None,
        }
        for size in sizes
    ]  # fmt: skip
    storage.write_table(folder / f"described-{number}.parquet", pa.Table.from_pylist(rows, DESCRIBED))
    vectors = np.random.default_rng(number).standard_normal((len(sizes), DIM)).astype(np.float16)
    storage.write_vectors(folder / f"vectors-{number}.npy", vectors)
    described, embeddings = (
        published(folder / name) for name in (f"described-{number}.parquet", f"vectors-{number}.npy")
    )
    return Part(number, "web", "uncurated", offset, len(sizes), described, described, embeddings)


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    return [part_of(tmp_path, 0, [50, 20, 70]), part_of(tmp_path, 1, [10, 60], offset=3)]


def config_of(folder: Path, *, min_side_px: int = 32, head: bool = False) -> RunConfig:
    save_file({"weight": WEIGHT, "bias": np.array([0.25], np.float32)}, folder / "head.safetensors")
    vectors = f"precomputed:{folder / 'vectors.parquet'}"
    heads = {"aesthetic": {"kind": "weights", "weights": str(folder / "head.safetensors"), "form": "linear"}}
    data = {
        "run_dir": str(folder / "run"),
        "pools": {"web": {"role": "uncurated", "sources": [{"kind": "folder", "path": str(folder)}]}},
        "describe": {"embed": {"embedder": vectors}, "heads": heads if head else {}},
        "judge": {"min_side_px": min_side_px},
    }
    return validate(data, where="a test")


def runner_of(folder: Path, *, is_dry: bool = False) -> Runner:
    return Runner(str(folder / "run"), None if is_dry else LocalExecutor(), Progress(quiet=True))


def reasons(part: Part) -> list[str | None]:
    table = read(part.verdicts)
    assert table.schema == VERDICTS
    return table["reason"].to_pylist()


def test_every_part_gets_its_verdicts(parts: list[Part], tmp_path: Path) -> None:
    config = config_of(tmp_path)
    judged = judge_parts(runner_of(tmp_path), config, parts)
    assert [reasons(part) for part in judged] == [[None, "too_small", None], ["too_small", None]]
    for part, before in zip(judged, parts, strict=True):
        assert read(part.verdicts).equals(judge(read(before.described), config.judge, scores=None))
        assert (part.described, part.embeddings) == (before.described, before.embeddings)


def test_a_threshold_counts_and_vectors_do_not(parts: list[Part], tmp_path: Path) -> None:
    judge_parts(runner_of(tmp_path), config_of(tmp_path), parts)
    without = [replace(part, embeddings=None) for part in parts]
    judge_parts(runner_of(tmp_path, is_dry=True), config_of(tmp_path), without)  # which are found
    with pytest.raises(StopHereError):
        judge_parts(runner_of(tmp_path, is_dry=True), config_of(tmp_path, min_side_px=15), parts)
    judged = judge_parts(runner_of(tmp_path), config_of(tmp_path, min_side_px=15), parts)
    assert [reasons(part) for part in judged] == [[None, None, None], ["too_small", None]]


def test_without_heads_nothing_is_scored(parts: list[Part], tmp_path: Path) -> None:
    assert score_parts(runner_of(tmp_path), config_of(tmp_path), parts) == tuple(parts)
    assert not (tmp_path / "run" / "steps").exists()


def test_a_head_scores_the_vectors_of_every_part(parts: list[Part], tmp_path: Path) -> None:
    scored = score_parts(runner_of(tmp_path), config_of(tmp_path, head=True), parts)
    for part in scored:
        vectors = np.load(part.embeddings.path).astype(np.float64)
        found = read(part.scores)["aesthetic"].to_numpy()
        np.testing.assert_allclose(found, vectors @ WEIGHT[0] + 0.25, atol=1e-3)


def test_scores_hang_on_the_bytes_of_the_head_not_on_its_place(parts: list[Part], tmp_path: Path) -> None:
    [first, _] = score_parts(runner_of(tmp_path), config_of(tmp_path, head=True), parts)
    config = config_of(tmp_path, head=True)
    elsewhere = tmp_path / "moved.safetensors"
    elsewhere.write_bytes((tmp_path / "head.safetensors").read_bytes())
    moved = config.describe.heads.aesthetic.model_copy(update={"weights": str(elsewhere)})
    heads = config.describe.heads.model_copy(update={"aesthetic": moved})
    other = config.model_copy(update={"describe": config.describe.model_copy(update={"heads": heads})})
    [again, _] = score_parts(runner_of(tmp_path, is_dry=True), other, parts)
    assert again.scores == first.scores
    save_file({"weight": 2 * WEIGHT, "bias": np.zeros(1, np.float32)}, elsewhere)
    with pytest.raises(StopHereError):
        score_parts(runner_of(tmp_path, is_dry=True), other, parts)
