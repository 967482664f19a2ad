"""Which part of an image a crop shows: drawn as torchvision's RandomResizedCrop draws it."""

import math
import random

# Of torchvision's RandomResizedCrop, which the official code uses as it comes.
ASPECT_RANGE = (3 / 4, 4 / 3)
REGION_TRIES = 10

Share = tuple[float, float]


def sample_region(
    size_px: tuple[int, int], scale: Share, rng: random.Random, *, aspect: float = 1.0
) -> tuple[int, int, int, int]:
    """Draw a region as torchvision's RandomResizedCrop does.

    Its share of the area is uniform in `scale` and its aspect log-uniform from 3/4 to 4/3 of the crop's own;
    where none of ten tries fits into the image, it is the largest central region of an allowed aspect.

    Args:
        size_px: (height, width) of the image.
        scale: smallest and largest share of the area.
        rng: where it is drawn from.
        aspect: width / height of the crop.

    Returns:
        top, left, height, width, pixels of the image.
    """
    image_height, image_width = size_px
    low, high = (aspect * bound for bound in ASPECT_RANGE)
    for _ in range(REGION_TRIES):
        area = image_height * image_width * uniform(*scale, rng)
        drawn = math.exp(uniform(math.log(low), math.log(high), rng))
        width, height = round(math.sqrt(area * drawn)), round(math.sqrt(area / drawn))
        if 0 < width <= image_width and 0 < height <= image_height:
            top = int(rng.random() * (image_height - height + 1))
            left = int(rng.random() * (image_width - width + 1))
            return top, left, height, width
    height, width = image_height, image_width
    if image_width < low * image_height:
        height = round(image_width / low)
    elif image_width > high * image_height:
        width = round(image_height * high)
    return (image_height - height) // 2, (image_width - width) // 2, height, width


def uniform(low: float, high: float, rng: random.Random) -> float:
    """Draw a number, by the one call of Python's generator whose sequence is promised."""
    return low + (high - low) * rng.random()
