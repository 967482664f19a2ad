"""Scheduled values by hand, at their ends, and their shape between."""

import math
from itertools import pairwise

import pytest
from pydantic import ValidationError

from pretrain.schedules import ScheduleConfig, cosine, scaled_lr, scheduled

CONFIG = ScheduleConfig(
    iterations=100,
    base_lr=4e-3,
    min_lr=1e-6,
    lr_warmup=11,
    freeze_last_layer=7,
    weight_decay=0.04,
    weight_decay_end=0.4,
    momentum=0.992,
    momentum_end=1.0,
    teacher_temperature=0.07,
    teacher_temperature_start=0.04,
    teacher_temperature_warmup=31,
)


def test_cosine_by_hand() -> None:
    assert [cosine(i, 1.0, 0.0, total=4) for i in range(6)] == pytest.approx(
        [1, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2, 0, 0]
    )
    assert [cosine(i, 3.0, 1.0, total=5, warmup=3) for i in range(6)] == pytest.approx([0, 1.5, 3, 3, 2, 1])
    assert cosine(0, 3.0, 1.0, total=5, warmup=1) == 0.0
    assert cosine(0, 3.0, 1.0, total=5) == 3.0


def test_the_learning_rate() -> None:
    lr = [scheduled(i, CONFIG).lr for i in range(101)]
    assert lr[0] == 0
    assert lr[5] == pytest.approx(2e-3)
    assert lr[10] == lr[11] == pytest.approx(4e-3)  # the warm-up takes in both of its ends
    assert all(a < b for a, b in pairwise(lr[:11]))
    assert all(a > b for a, b in pairwise(lr[11:100]))
    assert lr[100] == 1e-6
    assert lr[11 + 44] + lr[11 + 45] == pytest.approx(4e-3, rel=1e-2)


def test_the_last_layer_is_frozen_at_first() -> None:
    for i in range(20):
        values = scheduled(i, CONFIG)
        assert values.last_layer_lr == (0 if i < 7 else values.lr)


def test_weight_decay_and_momentum() -> None:
    values = [scheduled(i, CONFIG) for i in range(101)]
    assert values[0].weight_decay == pytest.approx(0.04)
    assert values[50].weight_decay == pytest.approx(0.22)
    assert values[100].weight_decay == pytest.approx(0.4)
    assert values[0].momentum == pytest.approx(0.992)
    assert values[50].momentum == pytest.approx(0.996)
    assert values[99].momentum < 1
    assert all(a.momentum < b.momentum for a, b in pairwise(values))


def test_the_teachers_temperature() -> None:
    values = [scheduled(i, CONFIG).teacher_temperature for i in range(60)]
    assert values[0] == pytest.approx(0.04)
    assert values[15] == pytest.approx(0.055)
    assert values[30:] == pytest.approx([0.07] * 30)
    steps = [b - a for a, b in pairwise(values[:31])]
    assert steps == pytest.approx([0.001] * 30)
    none = ScheduleConfig(iterations=5)
    assert [scheduled(i, none).teacher_temperature for i in range(5)] == [0.07] * 5


def test_the_rate_goes_with_the_root_of_the_batch() -> None:
    assert scaled_lr(4e-3, batch_images=2048) == pytest.approx(4e-3 * math.sqrt(2))
    assert scaled_lr(2e-4, batch_images=3072) == pytest.approx(3.46e-4, rel=2e-3)  # as published for L/14
    assert scheduled(50, CONFIG, batch_images=256).lr == pytest.approx(scheduled(50, CONFIG).lr / 2, rel=1e-3)


@pytest.mark.parametrize("name", ["lr_warmup", "freeze_last_layer"])
def test_what_is_longer_than_the_training_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is longer than the training of 5 iterations"):
        ScheduleConfig(iterations=5, **{name: 6})
    config = ScheduleConfig(iterations=5, **{name: 5})
    assert all(math.isfinite(x) for i in range(6) for x in scheduled(i, config))
