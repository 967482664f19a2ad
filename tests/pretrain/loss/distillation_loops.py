"""The losses of distillation once more: NumPy, fp64, a loop for every sum; nothing of the package is used."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(scores: Array) -> Array:
    powers = [math.exp(score - max(scores)) for score in scores]
    return np.array(powers) / sum(powers)


def entropy(scores: Array, target: Array, *, temperature: float) -> float:
    made = softmax(scores / temperature)
    return -sum(t * math.log(p) for t, p in zip(target, made, strict=True))


def sinkhorn(scores: Array, *, temperature: float) -> Array:
    """The textbook's: columns, then rows, three times; every row ends as a distribution."""
    q = np.exp(scores / temperature)
    num_rows, num_prototypes = q.shape
    q = q / q.sum()
    for _ in range(3):
        for k in range(num_prototypes):
            q[:, k] /= q[:, k].sum() * num_prototypes
        for i in range(num_rows):
            q[i] /= q[i].sum() * num_rows
    return q * num_rows


def dino(globals_: Array, locals_: Array, targets: Array, *, temperature: float) -> tuple[float, float]:
    """The local and the global share; crops are (crop, image, K). Every pair of unlike crops is one term."""
    local, other, terms = 0.0, 0.0, 0
    num_images = globals_.shape[1]
    for t, target in enumerate(targets):
        for crop in locals_:
            terms += 1
            for i in range(num_images):
                local += entropy(crop[i], target[i], temperature=temperature) / num_images
        for s, view in enumerate(globals_):
            if s != t:
                terms += 1
                for i in range(num_images):
                    other += entropy(view[i], target[i], temperature=temperature) / num_images
    return local / terms, other / terms


def ibot(scores: Array, targets: Array, masks: NDArray[np.bool_], *, temperature: float) -> float:
    """Scores of every patch (image, patch, K); targets only of those sampled, one after the other."""
    total, number = 0.0, 0
    for image, mask in zip(scores, masks, strict=True):
        of_image = []
        for patch, is_sampled in zip(image, mask, strict=True):
            if is_sampled:
                of_image.append(entropy(patch, targets[number], temperature=temperature))
                number += 1
        total += sum(of_image) / max(1, len(of_image))
    return total / len(scores)


def koleo(features: Array) -> float:
    unit = [x / math.sqrt(sum(x * x)) for x in features]
    logs = []
    for i, x in enumerate(unit):
        logs.append(math.log(min(math.dist(x, y) for j, y in enumerate(unit) if j != i)))
    return -sum(logs) / len(logs)


def standardised(x: Array) -> Array:
    mean = sum(x) / len(x)
    variance = sum((x - mean) ** 2) / len(x)
    return (x - mean) / math.sqrt(variance + 1e-6)


def bilinear(image: Array, *, to: tuple[int, int]) -> Array:
    """A map (row, column, dim) read at the centres of a grid, the edge carried on outside."""
    rows, columns, dim = image.shape
    made = np.zeros((*to, dim))
    for r in range(to[0]):
        for c in range(to[1]):
            y = min(max((r + 0.5) * rows / to[0] - 0.5, 0), rows - 1)
            x = min(max((c + 0.5) * columns / to[1] - 0.5, 0), columns - 1)
            for near_y in range(rows):
                for near_x in range(columns):
                    share = max(0, 1 - abs(y - near_y)) * max(0, 1 - abs(x - near_x))
                    made[r, c] += share * image[near_y, near_x]
    return made


def apart(x: Array, y: Array) -> float:
    dot, long_x, long_y = (sum(a * b for a, b in zip(p, q, strict=True)) for p, q in [(x, y), (x, x), (y, y)])
    return float(1 - dot / math.sqrt(long_x * long_y))


def smooth_l1(x: Array, y: Array) -> float:
    gaps = [abs(a - b) for a, b in zip(x, y, strict=True)]
    return float(sum(gap * gap / 2 if gap < 1 else gap - 0.5 for gap in gaps) / len(gaps))


def features(cls: Array, maps: Array, teacher_cls: Array, teacher_maps: Array) -> tuple[float, float]:
    """Class tokens (b, dim) and maps (b, row, column, dim) of the student, then of the teacher."""
    of_cls = [apart(x, standardised(y)) for x, y in zip(cls, teacher_cls, strict=True)]
    of_patches = []
    for ours, theirs in zip(maps, teacher_maps, strict=True):
        rows, columns, _ = theirs.shape
        guess = bilinear(ours, to=(rows, columns))
        for r in range(rows):
            for c in range(columns):
                target = standardised(theirs[r, c])
                of_patches.append(0.9 * apart(guess[r, c], target) + 0.1 * smooth_l1(guess[r, c], target))
    return sum(of_cls) / len(of_cls), sum(of_patches) / len(of_patches)
