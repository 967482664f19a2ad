"""The things that pictures show: each at its place, in its size and colours, no two the same."""

from itertools import combinations
from typing import get_args

import numpy as np
import pytest

from pipelines.demo.canvas import Canvas
from pipelines.demo.concepts import Motif
from pipelines.demo.motifs import DRAWERS, draw_motif

MOTIFS: tuple[Motif, ...] = get_args(Motif)
COLOURS = [(220, 40, 40), (40, 200, 60), (60, 80, 230)]


def drawn(
    motif: Motif, *, at: tuple[float, float] = (100, 100), size: float = 40, seed: int = 0
) -> np.ndarray:
    canvas = Canvas(200, 200, np.random.default_rng(seed))
    draw_motif(canvas, motif, at, size, colours=COLOURS)
    return np.asarray(canvas.image)


def test_every_motif_has_its_drawer() -> None:
    assert set(DRAWERS) == set(MOTIFS)
    assert len(set(DRAWERS.values())) == len(MOTIFS)


@pytest.mark.parametrize("motif", MOTIFS)
def test_a_motif_is_decided_by_chance_and_stays_by_its_place(motif: Motif) -> None:
    picture = drawn(motif)
    np.testing.assert_array_equal(picture, drawn(motif))
    rows, columns = np.nonzero(picture.any(axis=2))
    assert len(rows) > 40
    # A tower or a lighthouse stands on its place, a text is as long as its word; none goes further than this.
    assert np.abs(rows - 100).max() <= 100
    assert np.hypot(rows.mean() - 100, columns.mean() - 100) < 45


@pytest.mark.parametrize("motif", [motif for motif in MOTIFS if motif != "text"])  # whose letters are whole
def test_a_motif_grows_with_its_size(motif: Motif) -> None:
    small, large = (drawn(motif, size=size).any(axis=2).sum() for size in (12, 40))
    assert large > 2 * small


@pytest.mark.parametrize("motif", MOTIFS)
def test_a_motif_goes_where_it_is_put(motif: Motif) -> None:
    here, there = drawn(motif, at=(60, 100), size=15), drawn(motif, at=(140, 100), size=15)
    columns = [np.nonzero(picture.any(axis=2))[1].mean() for picture in (here, there)]
    assert columns[1] - columns[0] == pytest.approx(80, abs=2)


def test_no_two_motifs_look_the_same() -> None:
    pictures = {motif: drawn(motif) for motif in MOTIFS}
    for one, other in combinations(MOTIFS, 2):
        assert (pictures[one] != pictures[other]).any(axis=2).mean() > 0.005, (one, other)
