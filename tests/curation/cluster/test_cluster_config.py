"""Units of work of a clustering: small beside the sums, and never more than minutes."""

import pytest

from curation.cluster.config import ClusterConfig


@pytest.mark.parametrize(
    ("num_clusters", "rows"),
    [(0, 65_536), (1000, 65_536), (10_000, 160_000), (100_000, 343_597), (500_000, 1_000_000)],
)
def test_rows_of_a_unit(num_clusters: int, rows: int) -> None:
    assert ClusterConfig().rows_of_group(num_clusters) == rows


def test_what_takes_long_goes_in_steps() -> None:
    rule = ClusterConfig(iterations=50)
    assert not rule.is_large(60_000, 500)
    assert rule.is_large(70_000, 500)  # more than one unit
    # One unit, which would be clustered eleven times, fifty iterations each: the level of hierarchical.yaml.
    assert not rule.is_large(10_000, 1000, clusterings=11)
    assert rule.is_large(500_000, 50_000, clusterings=11)
    assert rule.is_large(60_000, 20_000)
