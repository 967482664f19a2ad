"""Thumbnails: small, safe, and with a reason where there is none."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_runs import MakeRun, jpeg

from curation.pictures.decode import DecodeConfig
from curation.schema import LINEAGE
from pipelines.answers.finished_run import require_run
from pipelines.report.pictures import Picture, pictures_at
from pipelines.report.thumbnails import Originals, encode_thumbnail, make_thumbnails


@pytest.mark.parametrize("shape", [(500, 300), (1, 9000), (9000, 1), (16, 16), (128, 128)])
def test_encoded_thumbnail_fits(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    with Image.open(io.BytesIO(encode_thumbnail(pixels))) as image:
        assert max(image.size) == min(max(shape), 128)
        assert min(image.size) >= 1
        assert not image.getexif()


def test_what_describe_refused_is_never_opened() -> None:
    fields = dict.fromkeys(LINEAGE.names) | {"pool": "web", "key": "x", "uri": "x", "decision": "dropped"}
    killer = Picture(row=0, **fields | {"stage": "describe", "reason": "crashed_decoder"})

    class Never(Originals):
        def __init__(self) -> None:
            pass

        def read(self, picture: Picture) -> bytes:
            raise AssertionError(f"{picture.key} was read")

    found = make_thumbnails([killer], Never(), config=DecodeConfig())
    assert found[0].uri is None
    assert found[0].why == "crashed decoder"


def test_kept_and_dropped_pictures_are_the_right_ones(make_run: MakeRun, tmp_path: Path) -> None:
    files = {f"{i}.jpg": jpeg(i) for i in range(5)} | {"copy.jpg": jpeg(0, 40)}
    run = require_run(str(make_run(tmp_path, {"web": ("uncurated", files)})))
    assert run.curated is not None
    pictures = list(pictures_at(run.lineage, range(run.lineage.num_rows)).values())
    assert {p.is_kept for p in pictures} == {True, False}
    with Originals(run.dataset_dir, run.curated.parts, pictures) as originals:
        found = make_thumbnails(pictures, originals, config=DecodeConfig())
        assert make_thumbnails(pictures, originals, config=DecodeConfig()) == found
    for picture in pictures:
        uri = found[picture.row].uri
        assert uri is not None
        with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
            shown = np.asarray(image.convert("RGB"), np.float64)
        with Image.open(io.BytesIO(files[picture.key])) as image:
            original = np.asarray(image.convert("RGB").resize(shown.shape[1::-1]), np.float64)
        assert np.abs(shown - original).mean() < 12
