"""Batched `phash` against `imagehash.phash`, both from decoded pictures, on one core."""

import json
import statistics
import time

import imagehash
import numpy as np
from PIL import Image

from curation.describe.phash import grey32, phash

NUM_PICTURES, SIDE_PX, NUM_ROUNDS = 500, 224, 5


def draw_pictures(num: int, side_px: int, *, seed: int) -> list[np.ndarray]:
    """Smooth random pictures: the hash does not care, the resize costs the same for all."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num, 9, 9, 3), np.uint8)
    return [np.array(Image.fromarray(picture).resize((side_px, side_px))) for picture in coarse]


def main() -> None:
    """Print one JSON line; `hash_only` is the transform without the resize to 32 x 32 that both share."""
    pictures = draw_pictures(NUM_PICTURES, SIDE_PX, seed=0)
    images = [Image.fromarray(picture) for picture in pictures]
    ours_s, theirs_s, hash_s = [], [], []
    for _ in range(NUM_ROUNDS):
        start = time.perf_counter()
        grey = np.stack([grey32(picture) for picture in pictures])
        middle = time.perf_counter()
        ours = phash(grey)
        end = time.perf_counter()
        theirs = [int(str(imagehash.phash(image)), 16) for image in images]
        theirs_s.append(time.perf_counter() - end)
        ours_s.append(end - start)
        hash_s.append(end - middle)
    assert ours.tolist() == theirs, "a bit differs"
    rate, reference_rate = (NUM_PICTURES / statistics.median(times) for times in (ours_s, theirs_s))
    print(
        json.dumps(
            {
                "what": "pHash of decoded pictures, equal bits",
                "size": f"{NUM_PICTURES} x {SIDE_PX} px",
                "rate": round(rate),
                "unit": "images/s",
                "reference": "imagehash.phash",
                "reference_rate": round(reference_rate),
                "ratio": round(rate / reference_rate, 2),
                "hash_only": round(NUM_PICTURES / statistics.median(hash_s)),
            }
        )
    )


if __name__ == "__main__":
    main()
