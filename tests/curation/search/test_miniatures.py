"""Pictures compared by their pixels: by hand, against a plain loop, and however they are tiled."""

import numpy as np
import pytest

from curation.search import miniatures
from curation.search.miniatures import (
    BASE_LEVELS,
    FINE,
    LEAST_SCORE,
    NUM_BYTES,
    PLAIN,
    miniature_pairs,
    miniature_scores,
)


def miniature(colours: np.ndarray | int, *, mark: int = PLAIN, digest: int = 0) -> np.ndarray:
    """A row of bytes: one colour, or (32, 32, 3) of them."""
    cells = np.broadcast_to(np.asarray(colours, np.uint8), (32, 32, 3))
    return np.concatenate([[mark], cells.ravel(), np.full(16, digest)]).astype(np.uint8)


def test_scores_by_hand() -> None:
    half = np.zeros((32, 32, 3), np.uint8)
    half[16:] = 120
    shifted = half.copy()
    shifted[0] += 2 * BASE_LEVELS  # among cells of its own colour
    edged = half.copy()
    edged[15] += BASE_LEVELS + 120 // 4  # beside the other half; as an edge of its own it may differ by more
    pairs = [
        (miniature(100), miniature(100), 1.0),
        (miniature(100), miniature(100 + BASE_LEVELS), LEAST_SCORE),
        (miniature(100), miniature(101), 1 - 0.1 / BASE_LEVELS),
        (miniature(0), miniature(255), 0.0),
        (miniature(half), miniature(shifted), 1 - 0.2),
        (miniature(half), miniature(edged), LEAST_SCORE),
        (miniature(9, mark=FINE, digest=1), miniature(9, mark=FINE, digest=1), 1.0),
        (miniature(9, mark=FINE, digest=1), miniature(9, mark=FINE, digest=2), 0.0),
        (miniature(9, mark=FINE, digest=1), miniature(9), 0.0),
    ]
    left, right, expected = (np.stack(side) for side in zip(*pairs, strict=True))
    assert left.shape[1] == NUM_BYTES
    assert miniature_scores(left, right) == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(miniature_scores(left, right), miniature_scores(right, left))


def drawn(seed: int, num: int) -> np.ndarray:
    """Few pictures, each many times over with noise about as large as is allowed; some fine, some equal."""
    rng = np.random.default_rng(seed)
    scenes = rng.integers(20, 230, (3, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    chosen = scenes[rng.integers(3, size=num)]
    cells = chosen + rng.integers(-3, 4, (num, 1, 1, 1)) + rng.integers(-1, 2, chosen.shape)
    rows = [
        miniature(one, mark=FINE, digest=int(rng.integers(2))) if rng.random() < 0.2 else miniature(one)
        for one in cells
    ]
    rows += [rows[i] for i in rng.integers(num, size=num // 2)]
    return np.stack(rows)


def components(num: int, pairs: set[tuple[int, int]]) -> list[int]:
    label = list(range(num))
    for _ in range(num):
        for a, b in pairs:
            label[a] = label[b] = min(label[a], label[b])
    return label


@pytest.mark.parametrize("seed", range(3))
def test_pairs_equal_a_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(seed, 30)
    wanted = {
        (i, j): score
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
        if (score := miniature_scores(rows[i : i + 1], rows[j : j + 1])[0]) >= LEAST_SCORE
    }
    assert 50 < len(wanted) < 900
    found = miniature_pairs(rows, rows, same=True)
    got = dict(zip(zip(found.a.tolist(), found.b.tolist(), strict=True), found.score.tolist(), strict=True))
    assert got.items() <= wanted.items()
    distinct = {pair for pair in wanted if not any(wanted.get((k, i)) == 1 for i in pair for k in range(i))}
    assert distinct <= got.keys()  # and equal ones hang on the first of them
    assert components(len(rows), set(got)) == components(len(rows), set(wanted))

    monkeypatch.setattr(miniatures, "_TILE_ROWS", 7)
    monkeypatch.setattr(miniatures, "_TILE_COLUMNS", 7)
    tiled = miniature_pairs(rows, rows, same=True)
    assert (tiled.a.tolist(), tiled.b.tolist()) == (found.a.tolist(), found.b.tolist())
    assert tiled.score.tolist() == found.score.tolist()


def boards(num: int) -> np.ndarray:
    """Chessboards with a few cells moved, some by more than is allowed among such contrast."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:32, :32]
    made = []
    for _ in range(num):
        board = np.repeat((y + x)[..., None] % 2 * 255, 3, axis=2)
        row, column = rng.integers(0, 32, (2, 15))
        board[row, column] = np.abs(board[row, column] - rng.integers(0, 70, (15, 3)))
        made.append(miniature(board))
    return np.stack(made)


@pytest.mark.parametrize("tile", [5, 512])
def test_boards_that_differ_in_a_few_cells(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = boards(60)
    a, b = np.triu_indices(len(rows), 1)
    score = miniature_scores(rows[a], rows[b])
    alike = score >= LEAST_SCORE
    assert 100 < alike.sum() < len(a) - 100
    monkeypatch.setattr(miniatures, "_TILE_ROWS", tile)
    found = miniature_pairs(rows, rows, same=True)
    assert (found.a.tolist(), found.b.tolist()) == (a[alike].tolist(), b[alike].tolist())
    assert found.score.tolist() == score[alike].tolist()
    sides = miniature_pairs(rows[:20], rows[20:], same=False, every_a=True)
    across = alike & (a < 20) & (b >= 20)
    assert (sides.a.tolist(), (sides.b + 20).tolist()) == (a[across].tolist(), b[across].tolist())


def test_two_sides_find_for_every_row_what_is_alike() -> None:
    rows = drawn(9, 24)
    left, right = rows[:20], rows[20:]
    found = miniature_pairs(left, right, same=False, every_a=True)
    got = set(zip(found.a.tolist(), found.b.tolist(), strict=True))
    alike = np.array([miniature_scores(np.stack([row] * len(right)), right) for row in left]) >= LEAST_SCORE
    assert {a for a, _ in got} == set(np.flatnonzero(alike.any(axis=1)).tolist())
    assert all(alike[a, b] for a, b in got)


def test_nothing() -> None:
    none = np.zeros((0, NUM_BYTES), np.uint8)
    assert len(miniature_pairs(none, none, same=True).a) == 0
    assert len(miniature_pairs(none, miniature(3)[None], same=False).a) == 0
