"""A long-tailed set of known concepts, and how evenly a sample covers them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LongTail:
    """Unit vectors, fp16 (n, d), around concepts whose sizes fall like 1 / rank, and the concept of each."""

    vectors: np.ndarray
    concept: np.ndarray
    num_concepts: int


def draw_long_tail(
    num_rows: int, *, num_concepts: int, dim: int, spread: float, exponent: float = 1.2, seed: int = 0
) -> LongTail:
    """Draw concepts uniformly on the sphere, and about `num_rows` vectors around them.

    Args:
        num_rows: in all; each concept has 20 at least.
        num_concepts: the k-th largest has a share proportional to k^-exponent.
        dim: of the vectors.
        spread: length of the noise that is added to a concept's unit vector, root mean square.
        exponent: of Zipf's law.
        seed: of everything drawn.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_concepts, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    share = np.arange(1, num_concepts + 1.0) ** -exponent
    sizes = np.maximum(np.round(share / share.sum() * num_rows).astype(int), 20)
    concept = np.repeat(np.arange(num_concepts), sizes)
    vectors = centres[concept] + spread / dim**0.5 * rng.standard_normal((len(concept), dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = rng.permutation(len(concept))
    return LongTail(vectors[order].astype(np.float16), concept[order], num_concepts)


def balance_of(concept: np.ndarray, num_concepts: int) -> tuple[float, float]:
    """How far a sample is from uniform over concepts.

    Returns:
        KL divergence to the uniform distribution in nats, and the effective number of concepts, exp(entropy).
    """
    share = np.bincount(concept, minlength=num_concepts) / len(concept)
    share = share[share > 0]
    entropy = float(-(share * np.log(share)).sum())
    return float(np.log(num_concepts)) - entropy, float(np.exp(entropy))
