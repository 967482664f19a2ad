"""k-means++: where k-means starts from.

Seeds are drawn in rounds. A round draws a batch of candidates by the distances to the seeds before it, and
accepts each with probability (distance now / distance then), which leaves exactly the distribution of one
draw at a time. So the work of a round, the distances of all vectors to its seeds, can be spread over groups
of vectors, and there are few rounds: their batches double at first, and end as a share of k.

Source: Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding".
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int64

from curation.cluster.schedule import batch_size

_TILE_ROWS = 4096
_TILE_PRODUCTS = {"cpu": 1 << 21, "cuda": 1 << 25}


def seed_centroids(
    sample: Float16[np.ndarray, "s d"], num_clusters: int, *, seed: int
) -> Float32[np.ndarray, "k d"]:
    """k-means++: each seed is a vector drawn with probability ∝ its squared distance to the seeds before.

    Args:
        sample: unit vectors, at least `num_clusters` of them.
        num_clusters: k.
        seed: of the draws.

    Returns:
        Seeds of unit length. Where the sample has fewer than k distinct vectors the seeds repeat; the
        repeats come out empty and are re-seeded by `update_centroids`.
    """
    distance = np.ones(len(sample))
    seeds: list[np.ndarray] = []
    num_chosen = 0
    while num_chosen < num_clusters:
        drawn = draw_seeds(
            distance, sample.__getitem__, num_chosen=num_chosen, num_clusters=num_clusters, seed=seed
        )
        if not len(drawn):
            break
        nearest = nearest_distances(sample, drawn)
        distance = np.minimum(distance, nearest) if seeds else nearest
        seeds.append(drawn)
        num_chosen += len(drawn)
    return centroids_of(seeds, num_clusters)


def draw_seeds(
    distance: Float64[np.ndarray, " s"],
    vectors_at: Callable[[Int64[np.ndarray, " b"]], Float16[np.ndarray, "b d"]],
    *,
    num_chosen: int,
    num_clusters: int,
    seed: int,
) -> Float16[np.ndarray, "a d"]:
    """Draw the seeds of one round.

    Args:
        distance: of every vector of the sample, the squared distance to the nearest seed; for the first
            round, which draws one vector, ones.
        vectors_at: the vectors at some places of the sample.
        num_chosen: seeds drawn in earlier rounds.
        num_clusters: k.
        seed: of all draws.

    Returns:
        The new seeds; none where every vector of the sample equals a seed, as where there is none.
    """
    mass = np.cumsum(distance)
    if not len(mass) or not mass[-1]:
        return vectors_at(np.zeros(0, np.int64))
    rng = np.random.default_rng([seed, 1 + num_chosen])  # [seed, 0] would draw what the sample was drawn by
    luck = rng.random(batch_size(num_chosen, num_clusters)) * mass[-1]
    # Below the whole mass, even where the product is rounded up to it: a vector at distance 0 is never drawn.
    drawn = np.searchsorted(mass, np.minimum(luck, np.nextafter(mass[-1], 0)), side="right")
    vectors = vectors_at(drawn)
    exact = torch.from_numpy(np.array(vectors)).double()
    between = _squared_distances(exact, exact, squares_y=_squares(exact)).numpy()
    return np.asarray(vectors[_accept(distance[drawn], between, rng.random(len(drawn)))])


def nearest_distances(
    vectors: Float16[np.ndarray, "m d"],
    seeds: Float16[np.ndarray, "b d"],
    *,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Float64[np.ndarray, " m"]:
    """The squared distance of every vector to the nearest of some seeds; infinite where there is none."""
    if not len(seeds):
        return np.full(len(vectors), np.inf)
    others = torch.from_numpy(np.array(seeds)).to(device).double()
    squares = _squares(others)
    nearest = torch.empty(len(vectors), dtype=torch.float64, device=device)
    num_rows = min(max(_TILE_PRODUCTS[device] // len(seeds), 1), _TILE_ROWS)
    for start in range(0, len(vectors), num_rows):
        rows = slice(start, start + num_rows)
        some = torch.from_numpy(np.array(vectors[rows])).to(device).double()
        torch.amin(_squared_distances(some, others, squares_y=squares), dim=1, out=nearest[rows])
    return nearest.cpu().numpy()


def centroids_of(
    seeds: Sequence[Float16[np.ndarray, "_ d"]], num_clusters: int
) -> Float32[np.ndarray, "k d"]:
    """The seeds of all rounds as k centroids of unit length; where there are fewer than k, they repeat."""
    vectors = np.concatenate(seeds)
    return to_unit_length(vectors[np.resize(np.arange(len(vectors)), num_clusters)].astype(np.float64))


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


def _squared_distances(x: torch.Tensor, y: torch.Tensor, *, squares_y: torch.Tensor) -> torch.Tensor:
    """Exact, as sums of products of fp16 numbers are: equal vectors are at 0, draws agree on all hardware."""
    return torch.addmm(squares_y, x, y.T, alpha=-2).add_(_squares(x)[:, None])


def _squares(x: torch.Tensor) -> torch.Tensor:
    return (x * x).sum(dim=1)


def to_unit_length(vectors: Float64[np.ndarray, "k d"]) -> Float32[np.ndarray, "k d"]:
    """Rows scaled to length 1."""
    return np.asarray(vectors / np.sqrt((vectors * vectors).sum(axis=1, keepdims=True)), np.float32)
