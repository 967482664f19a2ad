"""What searches cost, on vectors drawn by lot: a rate for each kind of edge that the config asks for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curation import storage
from pipelines.config.run_config import RunConfig
from pipelines.engine.step import FileRef
from pipelines.plan import drawn_rates as drawn
from pipelines.plan.work import forecast
from pipelines.rows.parts import Part
from pipelines.stages.forecast import Shares, Sizes

Configure = Callable[..., RunConfig]
KINDS = ("", "pca_", "pixel_")


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Part:
    """A described part; few vectors are drawn, since what they take is not looked at."""
    few = {"JOIN_ROWS": 256, "QUERY_ROWS": 64, "KMEANS_ROWS": 256, "KMEANS_CLUSTERS": 8, "PIXEL_ROWS": 8}
    for name, number in few.items():
        monkeypatch.setattr(drawn, name, number)
    vectors = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float16)
    vectors[3] = 0  # could not be decoded
    path = str(tmp_path / "embeddings.npy")
    storage.write_vectors(Path(path), vectors)
    sha256, num_bytes = storage.sha256_file(path)
    ref = FileRef(path, num_bytes, sha256)
    return Part(0, "web", "uncurated", 0, 20, ref, embeddings=ref)


def joins(rates: dict[str, drawn.Rate]) -> set[str]:
    return {name for name in rates if name.endswith("_edges")}


def test_each_kind_of_edge_has_a_rate(configure: Configure, part: Part, tmp_path: Path) -> None:
    every = configure(tmp_path, "dedup.pca_radius=2", "decontaminate.pca_radius=2")
    rates = drawn.drawn_rates(every, part)
    assert joins(rates) == {f"{stage}_{kind}edges" for stage in ("dedup", "decontaminate") for kind in KINDS}
    assert all(rate.unit.wall_s > 0 for rate in rates.values())
    assert rates["cluster"].source == "k-means of 256 vectors drawn around the sample's"
    # Their names are those of steps.
    shares = Shares(image_bytes=1, embedding_dim=16, joined_pixels=1, searched_pixels=1, holdout_pixels=1)
    steps = {work.key for work in forecast(Sizes(every, dict.fromkeys(every.pools, 100), shares))}
    assert rates.keys() - steps == {"retrieve_index", "retrieve_shards"}  # it searches exactly


def test_what_is_off_is_not_measured(configure: Configure, part: Part, tmp_path: Path) -> None:
    off = [f"{stage}.cosine_threshold=null" for stage in ("dedup", "decontaminate")]
    rates = drawn.drawn_rates(configure(tmp_path, "dedup.edge_floor=null", *off), part)
    assert joins(rates) == {
        f"{stage}_{kind}edges" for stage in ("dedup", "decontaminate") for kind in ("", "pixel_")
    }
    # By cells, cosine edges are searched for in other steps: what is left are hashes.
    cells = drawn.drawn_rates(configure(tmp_path, "dedup.search=cells"), part)
    assert "dedup_edges" in cells
