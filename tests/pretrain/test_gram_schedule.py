"""When Gram anchoring acts and when its teacher is replaced."""

import pytest
from pydantic import ValidationError

from pretrain.gram import GramConfig, gram_weight, is_refreshed


def refreshes(config: GramConfig, *, until: int) -> list[int]:
    return [step for step in range(until) if is_refreshed(step, config)]


def test_the_published_run() -> None:
    # First at 1,010,000, then every 10,000, three times at most.
    config = GramConfig(start=1_010_000)
    steps = (1_000_000, 1_010_000, 1_015_000, 1_020_000, 1_030_000, 1_040_000, 1_050_000)
    assert [step for step in steps if is_refreshed(step, config)] == [1_010_000, 1_020_000, 1_030_000]
    assert gram_weight(1_009_999, config) == 0
    assert gram_weight(1_010_500, config) == pytest.approx(1.0)  # midway up
    assert gram_weight(1_011_000, config) == gram_weight(2_000_000, config) == 2.0


def test_a_teacher_from_a_checkpoint_is_not_taken_at_the_start() -> None:
    config = GramConfig(start=3, every=4, max_updates=2, teacher="runs/a/checkpoints/step-00000100")
    assert refreshes(config, until=30) == [7, 11]


def test_a_teacher_that_is_never_replaced() -> None:
    assert refreshes(GramConfig(start=3, every=None), until=30) == [3]
    assert refreshes(GramConfig(start=3, every=2, max_updates=1), until=30) == [3]


def test_no_teacher_at_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="leaves no Gram teacher"):
        GramConfig(max_updates=0)
    held = GramConfig(max_updates=0, teacher="runs/a/checkpoints/step-00000100")
    assert refreshes(held, until=30_000) == []


def test_replaced_without_an_end() -> None:
    assert refreshes(GramConfig(start=1, every=3, max_updates=None), until=12) == [1, 4, 7, 10]


def test_without_a_warm_up_the_weight_is_there_at_once() -> None:
    config = GramConfig(start=2, weight=0.5, warmup=0)
    assert [gram_weight(step, config) for step in range(4)] == [0, 0, 0.5, 0.5]


def test_the_weight_only_rises() -> None:
    config = GramConfig(start=2, warmup=5)
    weights = [gram_weight(step, config) for step in range(10)]
    assert weights == sorted(weights)
    assert weights[2] == 0
    assert weights[7] == 2
