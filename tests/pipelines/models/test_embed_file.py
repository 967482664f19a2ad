"""The vector of one file is that which describe makes of it."""

import io

import numpy as np
import pytest
from PIL import Image

from curation.describe.embed import EmbedConfig
from curation.describe.gist import Gist
from curation.errors import SourceError
from curation.pictures.decode import DecodeConfig
from curation.pictures.resample import resize
from curation.pictures.views import render
from pipelines.models.embed_file import embed_file


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def embed(data: bytes) -> np.ndarray:
    config = EmbedConfig(embedder="gist")
    return embed_file(data, config, threads=1, decoding=DecodeConfig(), path="some.png")


def test_the_vector_is_that_of_the_picture_in_any_batch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3), np.uint8)
    gist = Gist()
    batch = np.stack([render(one, gist.view, resize=resize) for one in pixels])
    expected = gist.embed(batch)
    for one, vector in zip(pixels, expected, strict=True):
        np.testing.assert_array_equal(embed(png(one)), vector)
    assert np.isclose(np.linalg.norm(expected[0].astype(np.float64)), 1, atol=1e-2)


def test_a_mirrored_picture_has_nearly_the_same() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    one, other = embed(png(pixels)).astype(np.float64), embed(png(pixels[:, ::-1])).astype(np.float64)
    assert one @ other > 0.99


@pytest.mark.parametrize("data", [b"", b"<html>", png(np.zeros((40, 40, 3), np.uint8))[:60]])
def test_a_file_that_is_no_picture_is_named(data: bytes) -> None:
    with pytest.raises(SourceError, match=r"some\.png cannot be decoded") as raised:
        embed(data)
    assert raised.value.got in {"empty", "not_an_image", "truncated", "corrupt"}
