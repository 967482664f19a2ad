"""Measuring on a sample: every step gets a rate, and the run directory nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.paths import absolute
from pipelines.plan.probe import probe
from pipelines.plan.sizes import Sizes
from pipelines.plan.work import forecast


@pytest.mark.accept
def test_a_sample_gives_every_rate(configure: Callable[..., Any], tmp_path: Path) -> None:
    config = absolute(configure(tmp_path / "run"))
    found = probe(config, num_images=96)
    assert not (tmp_path / "run").exists()
    works = forecast(Sizes(config, found.images, found.shares))
    unknown = {work.name for work in works if work.key not in found.rates}
    assert unknown <= {"ingest_units"}
    for name, rate in found.rates.items():
        assert rate.unit_s > 0, name
    assert found.counted
    assert found.shares.embedding_dim == 664
    assert 0 < found.shares.alive_pool <= 1
    assert sum(found.images.values()) > 200
