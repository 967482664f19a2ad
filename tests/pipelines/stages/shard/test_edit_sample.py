"""Editing one sample on its way into a shard: one picture never ends the step."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from curation.pictures.blur import BlurConfig
from curation.pictures.decode import DecodeConfig
from curation.shard.layout import ShardConfig
from curation.shard.sample import Sample
from pipelines.stages.shard.edit_sample import edited


def test_a_picture_that_no_longer_decodes_is_none() -> None:
    sample = Sample("0" * 32, "jpg", b"\xff\xd8 no picture", {"width": 40, "height": 30})
    face = np.array([[5, 5, 10, 10, 1]], np.float32)
    config = ShardConfig(blur_faces=BlurConfig())
    made = edited(sample, config, decoding=DecodeConfig(), file_format="JPEG", faces=face)
    assert made is None
    assert edited(sample, config, decoding=DecodeConfig(), file_format="JPEG", faces=None) is sample


def drawn(width: int, height: int) -> Sample:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return Sample("0" * 32, "png", out.getvalue(), {"width": width, "height": height, "key": "a.png"})


@pytest.mark.parametrize("size", [(96, 48), (48, 96)])
def test_a_smaller_picture_says_what_was_done(size: tuple[int, int]) -> None:
    sample, config = drawn(*size), ShardConfig(max_side_px=32, jpeg_quality=90)
    made = edited(sample, config, decoding=DecodeConfig(), file_format="PNG", faces=None)
    assert made is not None
    small = (size[0] // 3, size[1] // 3)
    assert (made.ext, made.key, made.meta["key"]) == ("jpg", sample.key, "a.png")
    assert made.meta["edits"] == [
        f"resized from {size[0]}x{size[1]} to {small[0]}x{small[1]} px",
        "encoded as JPEG of quality 90",
    ]
    assert made.meta["content_sha256"] == hashlib.sha256(made.data).hexdigest()
    with Image.open(io.BytesIO(made.data)) as image:
        assert (
            (image.format, image.size)
            == ("JPEG", small)
            == ("JPEG", (made.meta["width"], made.meta["height"]))
        )
    larger = ShardConfig(max_side_px=96)
    assert edited(sample, larger, decoding=DecodeConfig(), file_format="PNG", faces=None) is sample


def test_blurred_faces_keep_size_and_format_and_what_lies_beside_them() -> None:
    sample = drawn(96, 48)
    face = np.array([[60, 10, 20, 20, 0.9]], np.float32)
    config = ShardConfig(blur_faces=BlurConfig())
    made = edited(sample, config, decoding=DecodeConfig(), file_format="PNG", faces=face)
    assert made is not None
    assert (made.ext, made.meta["width"], made.meta["height"]) == ("png", 96, 48)
    before, after = (np.asarray(Image.open(io.BytesIO(data))) for data in (sample.data, made.data))
    assert (before[:, :20] == after[:, :20]).all()
    assert after[15:25, 65:75].std() < before[15:25, 65:75].std() / 2
    surer = ShardConfig(blur_faces=BlurConfig(min_score=0.95))
    assert edited(sample, surer, decoding=DecodeConfig(), file_format="PNG", faces=face) is sample
