"""What counts as a copy."""

import pytest
from pydantic import ValidationError

from curation.dedup.config import DedupConfig


def test_config():
    assert DedupConfig().phash_radius == 6
    assert DedupConfig().saved_from is None
    assert DedupConfig(cosine_threshold=0.9).saved_from == 0.9
    assert DedupConfig(cosine_threshold=0.9, edge_floor=0.8).saved_from == 0.8
    for wrong, message in (
        ({"cosine_threshold": 0.8, "edge_floor": 0.9}, "above cosine_threshold"),
        ({"edge_floor": 0.9}, "without cosine_threshold"),
        ({"cosine_threshold": 1.2}, "less than or equal to 1"),
        ({"phash_radius": 40}, "less than or equal to 32"),
        ({"radius": 4}, "Extra inputs"),
        ({"backend": "numpy"}, "torch"),
    ):
        with pytest.raises(ValidationError, match=message):
            DedupConfig.model_validate(wrong)
