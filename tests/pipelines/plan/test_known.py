"""What a run tells of its like: its sizes, and what is left on the way, as its manifest has them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from pipelines.config.run_config import RunConfig
from pipelines.config.run_dir import read_manifest
from pipelines.lvd import curate
from pipelines.plan.dry_run import dry_run
from pipelines.plan.known import KnownRun, known_run
from pipelines.stages.retrieve.forecast import num_kept

Configure = Callable[..., RunConfig]


def known(config: RunConfig) -> KnownRun | None:
    return known_run(config, dry_run(config, curate))


def test_a_finished_run_tells_its_shares(configure: Configure, finished: Path) -> None:
    config = configure(finished)
    found = known(config)
    assert found is not None
    manifest = read_manifest(str(finished))
    counts, shares, sizes = manifest["counts"], found.sizes.shares, found.sizes
    assert sizes.images == {name: counts[name]["images"] for name in config.pools}
    assert sizes.num_parts == len(found.parts)
    for alive, role in ((shares.alive_curated, "curated"), (shares.alive_pool, "uncurated")):
        [of_pool] = [counts[name] for name, pool in config.pools.items() if pool.role == role]
        lost = sum(of_pool[why] for why in ("rejected", "duplicates", "contaminated"))
        assert alive == pytest.approx(1 - lost / of_pool["images"])
    assert shares.kept_bytes == pytest.approx(
        sum(shard["bytes"] for shard in manifest["shards"]) / counts["dataset"]
    )
    assert num_kept(sizes) == counts["dataset"]
    assert shares.descriptor_dim is None  # gist is both
    assert (shares.embedding_dim, shares.num_probes) == (664, None)
    assert 0 < shares.joined_pixels < shares.joined < 1
    listed = [storage.read_table(part.images.path)["num_bytes"].to_pylist() for part in found.parts]
    assert shares.image_bytes == pytest.approx(sum(map(sum, listed)) / sizes.total)


def test_a_run_that_has_begun_tells_what_it_can(
    configure: Configure, tmp_path: Path, run_quietly: Callable[..., Any]
) -> None:
    config = configure(tmp_path / "run")
    assert known(config) is None
    run_quietly(config, until="ingest")
    assert known(config) is None
    run_quietly(config, until="judge")
    found = known(config)
    assert found is not None
    assert list(found.receipts) == ["ingest_units", "ingest", "describe", "judge"]
    assert (found.sizes.shares.joined, found.sizes.shares.kept_bytes) == (1.0, None)
    # A step that is half done is not timed.
    [*_, last] = (tmp_path / "run/steps/judge").glob("*/receipt.json")
    shutil.rmtree(last.parent)
    found = known(config)
    assert found is not None
    assert list(found.receipts) == ["ingest_units", "ingest", "describe"]
