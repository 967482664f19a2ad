"""Scores of embeddings by small heads: a few layers on a unit vector, as LAION publishes them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float16, Float32
from torch import Tensor
from torch.nn import functional

from curation.describe.heads_config import HeadName
from curation.schema import SCORES

# Vectors of a forward, always, and on one thread: a score never depends on its part or the machine's load.
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Layer:
    """weight · x + bias, and what follows."""

    weight: Float32[Tensor, "o i"]
    bias: Float32[Tensor, " o"]
    relu: bool = False


@dataclass(frozen=True)
class Head:
    """A stack of layers down to one number a vector.

    Args:
        layers: in order; the last gives one number.
        is_probability: whether a sigmoid makes a probability of it.
        centre, variance: of the vectors, each number of which is standardised first; None: they are taken
            as they are.
    """

    layers: tuple[Layer, ...]
    is_probability: bool = False
    centre: Float32[Tensor, " d"] | None = None
    variance: Float32[Tensor, " d"] | None = None

    @property
    def dim(self) -> int:
        """Length of the vectors that it scores."""
        return self.layers[0].weight.shape[1]

    def __call__(self, vectors: Float32[Tensor, "n d"]) -> Float32[Tensor, " n"]:
        """One score a vector."""
        x = vectors
        if self.centre is not None and self.variance is not None:
            # Keras' Normalization: a dimension that never varied is divided by its epsilon.
            x = (x - self.centre) / self.variance.sqrt().clamp(min=1e-7)
        for layer in self.layers:
            x = functional.linear(x, layer.weight, layer.bias)
            x = x.relu() if layer.relu else x
        return (x.sigmoid() if self.is_probability else x)[:, 0]


def compare(like: Float32[Tensor, "k d"], unlike: Float32[Tensor, "m d"], *, scale: float) -> Head:
    """A head that tells two groups of texts apart.

    A class is the mean of its texts' unit vectors, made a unit vector; the score is the softmax over the two
    of `scale` times the cosine, which is a sigmoid of the difference, and so one linear layer.

    Args:
        like, unlike: fp32 (k, d) and (m, d), unit rows: the texts of both classes.
        scale: the logit scale of the model that made them.

    Source: arXiv:2103.00020, §3.1.4 (an ensemble of prompts in the embedding space).
    """
    one, other = (functional.normalize(texts.double().mean(dim=0), dim=0) for texts in (like, unlike))
    weight = (scale * (one - other)).float()[None]
    return Head((Layer(weight, torch.zeros(1)),), is_probability=True)


def score(vectors: Float16[np.ndarray, "n d"], heads: Mapping[HeadName, Head]) -> pa.Table:
    """Score every vector with every head.

    Args:
        vectors: unit rows; zeros where an image has no vector.
        heads: by name; each scores vectors of this length.

    Returns:
        n rows of schema.SCORES: null where there is no vector, where a head makes no finite number of one,
        and of a head that is off.
    """
    has = vectors.any(axis=1)
    columns = {}
    torch.set_num_threads(1)  # each time: the setting is the process's, not ours
    for name in SCORES.names:
        values = np.zeros(len(vectors), np.float32)
        head = heads.get(name)
        if head is not None:
            values = _score(vectors, head)
        is_known = has & np.isfinite(values) if head is not None else np.zeros_like(has)
        columns[name] = pa.array(values, pa.float32(), mask=~is_known)
    return pa.table(columns, SCORES)


def _score(vectors: Float16[np.ndarray, "n d"], head: Head) -> Float32[np.ndarray, " n"]:
    values = np.zeros(len(vectors), np.float32)
    block = np.zeros((BLOCK_ROWS, vectors.shape[1]), np.float32)
    for first in range(0, len(vectors), BLOCK_ROWS):
        rows = vectors[first : first + BLOCK_ROWS]
        block[: len(rows)], block[len(rows) :] = rows, 0
        with torch.inference_mode():
            made = head(torch.from_numpy(block)).numpy()
        values[first : first + len(rows)] = made[: len(rows)]
    return values
