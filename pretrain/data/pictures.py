"""The pixels of one file of a dataset, as the crops want them: RGB levels, or the samples of bands."""

import math

import numpy as np
from jaxtyping import Float32, UInt8

from curation.pictures.decode import DecodeConfig, decode
from curation.pictures.samples import read_samples
from pretrain.data.augment import CropConfig, Size, sides_of
from pretrain.data.regions import Share

Picture = UInt8[np.ndarray, "_ _ 3"] | Float32[np.ndarray, "_ _ _"]  # each of its own size


def picture_of(data: bytes, crops: CropConfig) -> Picture | None:
    """Decode a file; None where it cannot be, is no TIFF that bands are asked of, or lacks one of them.

    A sample that is no number (NaN, infinity) is as the mean of its band's others: over the edge of what is
    known lies nothing that a crop could be told by.

    Args:
        data: the file.
        crops: which bands, or how large a JPEG is needed.

    Returns:
        RGB, uint8, (h, w, 3); or the bands, fp32, in the file's unit, (h, w, c).
    """
    caps = DecodeConfig()
    if crops.bands is None:
        return decode(data, need_side_px=decode_side_px(crops), config=caps).pixels
    values = read_samples(data, max_pixels=caps.max_pixels).values
    if values is None or values.shape[2] < max(crops.bands):
        return None
    chosen = values[..., [number - 1 for number in crops.bands]].astype(np.float32)
    is_known = np.isfinite(chosen)
    if not is_known.all():
        for band, known in zip(np.moveaxis(chosen, 2, 0), np.moveaxis(is_known, 2, 0), strict=True):
            band[~known] = band[known].mean(dtype=np.float64) if known.any() else 0
    return chosen


def decode_side_px(crops: CropConfig) -> int:
    """Short side to which a JPEG may be reduced in decoding so that no crop is enlarged for it, px."""
    sides = [_side_px(crops.global_size_px, crops.global_scale)]
    if crops.gram_size_px is not None:
        sides.append(_side_px(crops.gram_size_px, crops.global_scale))
    if crops.num_local:
        sides.append(_side_px(crops.local_size_px, crops.local_scale))
    return math.ceil(max(sides))


def _side_px(size: Size, scale: Share) -> float:
    """Short side of an image whose smallest region of a crop's aspect has the crop's pixels.

    Of an image that is too narrow for that aspect, the region is as long as one side of it.
    """
    height, width = sides_of(size)
    return float(max(math.sqrt(height * width) / math.sqrt(scale[0]), height, width))
