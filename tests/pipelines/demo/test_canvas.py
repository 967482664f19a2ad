"""What the demo's pictures are drawn on: lengths in pixels, and chance from one source alone."""

import numpy as np
import pytest

from pipelines.demo.canvas import Canvas, blend, shade

WHITE, RED = (255, 255, 255), (200, 10, 20)


def canvas(width: int = 80, height: int = 60, *, seed: int = 0) -> Canvas:
    return Canvas(width, height, np.random.default_rng(seed))


def drawn(made: Canvas) -> np.ndarray:
    """Which pixels are no longer black."""
    return np.asarray(made.image).any(axis=2)


def test_sizes_are_those_of_the_picture() -> None:
    made = canvas()
    assert made.image.size == (80, 60)
    assert made.side == 60
    assert 0.38 * 60 <= made.horizon <= 0.72 * 60
    assert not drawn(made).any()


def test_a_disc_has_its_area_and_its_place() -> None:
    made = canvas()
    made.disc((30, 20), 10, WHITE)
    rows, columns = np.nonzero(drawn(made))
    assert (rows.mean(), columns.mean()) == pytest.approx((20, 30), abs=0.6)
    assert len(rows) == pytest.approx(np.pi * 10.5**2, rel=0.05)
    squashed = canvas()
    squashed.disc((30, 20), 10, WHITE, squash=0.5)
    assert drawn(squashed).sum() == pytest.approx(len(rows) / 2, rel=0.15)


def test_a_box_is_given_in_units_of_its_size() -> None:
    made = canvas()
    made.box((40, 30), 10, (-1, 0, 2, 0.5), RED)
    rows, columns = np.nonzero(drawn(made))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (30, 60, 30, 35)
    assert tuple(np.asarray(made.image)[32, 45]) == RED


def test_a_shape_is_turned_about_its_place() -> None:
    upright, turned = canvas(), canvas()
    bar = [(-2.0, -0.5), (2.0, -0.5), (2.0, 0.5), (-2.0, 0.5)]
    upright.shape(bar, (40, 30), 10, WHITE)
    turned.shape(bar, (40, 30), 10, WHITE, turn=np.pi / 2)
    for made, (width, height) in ((upright, (41, 11)), (turned, (11, 41))):
        rows, columns = np.nonzero(drawn(made))
        assert np.ptp(columns) + 1 == pytest.approx(width, abs=1)
        assert np.ptp(rows) + 1 == pytest.approx(height, abs=1)


def test_a_gradient_goes_from_top_to_bottom() -> None:
    made = canvas()
    made.gradient((0, 0, 0), (240, 240, 240))
    rows = np.asarray(made.image).mean(axis=(1, 2))
    assert rows[:5].mean() < 60
    assert rows[-5:].mean() > 180


def test_colours_are_tinted_by_one_light_and_chance_decides_it() -> None:
    one, same, other = (canvas(seed=seed).tint("808080 c04020") for seed in (0, 0, 1))
    assert one == same != other
    assert np.abs(np.array(one[0]) - 128).max() < 45
    bright = canvas().tint("ffffff 000000")
    assert all(0 <= level <= 255 for colour in bright for level in colour)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (shade((100, 200, 40), 0.5), (50, 100, 20)),
        (shade((100, 200, 40), 2.0), (200, 255, 80)),
        (blend((0, 100, 255), (100, 0, 255), 0.25), (25, 75, 255)),
    ],
)
def test_shades_and_blends(made: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    assert made == expected
