"""k-means++: where k-means starts from.

Source: Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding".
"""

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int64

SEEDING_ROWS_PER_CENTROID = 16  # k-means++ costs 2·rows·k·d: 16 keeps it below a few Lloyd iterations
SEEDING_BATCH = 256  # candidates drawn at once; acceptance stays near 1 since it never exceeds those chosen
_CHUNK_ROWS = 4096


def sample_rows(num_rows: int, num_wanted: int, *, seed: int) -> Int64[np.ndarray, "r"]:
    """Draw rows evenly: one from each of `num_wanted` equal runs; all of them where that is no fewer."""
    if num_wanted >= num_rows:
        return np.arange(num_rows)
    starts = np.arange(num_wanted + 1) * num_rows // num_wanted
    luck = np.random.default_rng(seed).random(num_wanted)
    return starts[:-1] + (luck * np.diff(starts)).astype(np.int64)


def seed_centroids(
    sample: Float16[np.ndarray, "s d"], num_clusters: int, *, seed: int
) -> Float32[np.ndarray, "k d"]:
    """k-means++: each seed is a vector drawn with probability ∝ its squared distance to the seeds before.

    Drawn in batches: a candidate drawn by the distances before the batch is accepted with probability
    (distance now / distance then), which leaves exactly the distribution of one draw at a time.

    Args:
        sample: unit vectors, at least `num_clusters` of them.
        num_clusters: k.
        seed: of the draws.

    Returns:
        Seeds of unit length. Where the sample has fewer than k distinct vectors the seeds repeat; the
        repeats come out empty and are re-seeded by `update_centroids`.

    Source: Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding".
    """
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(sample)))]
    distance = _distances(sample, sample[chosen]).min(axis=1)
    while len(chosen) < num_clusters:
        mass = np.cumsum(distance)
        if mass[-1] == 0:
            break
        num_drawn = min(num_clusters - len(chosen), len(chosen), SEEDING_BATCH)
        drawn = np.searchsorted(mass, rng.random(num_drawn) * mass[-1], side="right")
        drawn = np.minimum(drawn, len(sample) - 1)
        accepted = _accept(distance[drawn], _distances(sample[drawn], sample[drawn]), rng.random(num_drawn))
        chosen.extend(drawn[accepted].tolist())
        for start in range(0, len(sample), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            nearest = _distances(sample[rows], sample[drawn[accepted]]).min(axis=1)
            np.minimum(distance[rows], nearest, out=distance[rows])
    return to_unit_length(sample[np.resize(chosen, num_clusters)].astype(np.float64))


def _accept(
    before: Float64[np.ndarray, "b"], between: Float64[np.ndarray, "b b"], luck: Float64[np.ndarray, "b"]
) -> Int64[np.ndarray, "a"]:
    """Which of a batch of candidates stay: in order, each with probability distance now / distance before."""
    now = before.copy()
    accepted = []
    for candidate in range(len(before)):
        if luck[candidate] * before[candidate] < now[candidate]:
            accepted.append(candidate)
            np.minimum(now, between[candidate], out=now)
    return np.array(accepted, np.int64)


def _distances(a: Float16[np.ndarray, "a d"], b: Float16[np.ndarray, "b d"]) -> Float64[np.ndarray, "a b"]:
    """Squared distances; exact, so that equal vectors are at 0 and draws agree on all hardware."""
    x, y = torch.from_numpy(np.array(a)).double(), torch.from_numpy(np.array(b)).double()
    squares_x, squares_y = (x * x).sum(dim=1), (y * y).sum(dim=1)
    return (squares_x[:, None] + squares_y[None, :] - 2 * (x @ y.T)).numpy()


def to_unit_length(vectors: Float64[np.ndarray, "k d"]) -> Float32[np.ndarray, "k d"]:
    """Rows scaled to length 1."""
    return (vectors / np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))).astype(np.float32)
