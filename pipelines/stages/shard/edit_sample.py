"""What is done to a sample's picture on its way into a shard: faces blurred, made smaller, or nothing."""

import hashlib
from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from curation.pictures.blur import EDIT, blur_faces, encode_like
from curation.pictures.decode import DecodeConfig, decode
from curation.shard.edit import shrink, shrunk_size
from curation.shard.layout import ShardConfig
from curation.shard.sample import Sample
from pipelines.rows.parts import Part, read


def edited(
    sample: Sample,
    config: ShardConfig,
    *,
    decoding: DecodeConfig,
    file_format: str,
    faces: Float32[np.ndarray, "n 5"] | None,
) -> Sample | None:
    """The sample as it goes into the shard, its key unchanged; None where it cannot be decoded again.

    Args:
        sample: with the original bytes.
        config: what is to be done.
        decoding: caps of the decoder.
        file_format: of the original, as Pillow names it.
        faces: left, top, width, height (px of the upright original) and score; None where there is none.
    """
    width, height = had = sample.meta["width"], sample.meta["height"]
    size, quality = shrunk_size(*had, max_side_px=config.max_side_px), config.jpeg_quality
    boxes = _to_blur(config, faces)
    if size == had and boxes is None:
        return sample
    pixels = decode(sample.data, need_side_px=min(size), config=decoding).pixels
    if pixels is None:  # describe may have decoded it at a smaller scale
        return None
    edits = []
    if config.blur_faces is not None and boxes is not None:
        scale = np.array([pixels.shape[1] / width, pixels.shape[0] / height] * 2)
        pixels = blur_faces(pixels, boxes * scale, config.blur_faces)
        edits.append(EDIT)
    if size == had:
        data, extension = encode_like(sample.data, pixels, file_format=file_format, quality=quality)
    else:
        data, extension = shrink(pixels, size, jpeg_quality=quality), "jpg"
        resized = f"resized from {width}x{height} to {size[0]}x{size[1]} px"
        edits += [resized, f"encoded as JPEG of quality {quality}"]
    changed = {"width": size[0], "height": size[1], "edits": edits}
    changed["content_sha256"] = hashlib.sha256(data).hexdigest()
    return replace(sample, data=data, ext=extension, meta=sample.meta | changed)


def _to_blur(config: ShardConfig, faces: Float32[np.ndarray, "n 5"] | None) -> np.ndarray | None:
    if config.blur_faces is None or faces is None:
        return None
    if config.blur_faces.min_score is not None:
        faces = faces[faces[:, 4] >= np.float32(config.blur_faces.min_score)]
    return faces[:, :4].astype(np.float64) if len(faces) else None


def faces_by_row(part: Part) -> dict[int, Float32[np.ndarray, "n 5"]]:
    """The faces of a part's images, by row within the part; only rows that have one."""
    if part.faces is None:
        return {}
    table = read(part.faces)
    rows = table["row"].to_numpy()
    values = np.stack([table[name].to_numpy() for name in table.column_names[1:]], axis=1)
    numbers, starts = np.unique(rows, return_index=True)
    return dict(zip(numbers.tolist(), np.split(values, starts[1:]), strict=True)) if len(rows) else {}
