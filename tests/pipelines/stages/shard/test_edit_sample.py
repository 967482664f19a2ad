"""Editing one sample on its way into a shard: one picture never ends the step."""

import numpy as np

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
