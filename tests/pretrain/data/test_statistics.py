"""Mean and deviation of the data: against NumPy over all pixels, and what is kept of them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from drawn_dataset import draw_jpeg, write_dataset_of
from safetensors.torch import save_file

from curation.errors import ConfigError, IntegrityError, ModelError
from pretrain.data.augment import CropConfig
from pretrain.data.images import Images, Spool
from pretrain.data.loader import DataConfig, Share, StepDataset, order_of
from pretrain.data.masking import MaskingConfig
from pretrain.data.pictures import picture_of
from pretrain.data.statistics import moments_of, settle_normalisation
from pretrain.normalisation import IMAGENET, Normalisation, metadata_of_normalisation, normalisation_of
from pretrain.parallel import ParallelConfig, place

BANDS = CropConfig(bands=(2, 1))


def written(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, values, planarconfig="contig", photometric="minisblack")
    return out.getvalue()


def scenes(num: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal([100, 5000], [10 + n, 900], (30, 40, 2)).astype(np.uint16) for n in range(num)]


def settled(crops: CropConfig, run_dir: Path, out: Path, *, start: str | None = None) -> Normalisation:
    images = Images(str(run_dir), cache=out / "cache", spool=Spool(out / "spool", 1 << 30))
    order = order_of(images, DataConfig(), seed=3)
    with place(ParallelConfig(device="cpu", dtype="fp32")) as where:
        return settle_normalisation(
            crops, images, order, run_dir=out, where=where, start=start, say=lambda _: None
        )


def test_moments_by_hand() -> None:
    """Images of 0 and 2, and of 4: spread 1 within the first, none in the second, 1.5 between them."""
    first = np.array([[[0.0], [2.0]]], np.float32)
    second = np.full((5, 5, 1), 4.0, np.float32)
    mean, std = moments_of([first, second])
    assert mean.tolist() == [2.5]
    assert std.tolist() == [np.sqrt(0.5 + 1.5**2)]
    mean, std = moments_of([np.full((2, 2, 3), 51, np.uint8), np.full((2, 2, 3), 255, np.uint8)])
    assert mean == pytest.approx([0.6] * 3)
    assert std == pytest.approx([0.4] * 3)
    large = np.random.default_rng(0).normal(3, 2, (900, 800, 1)).astype(np.float32)
    mean, std = moments_of([large])
    assert mean[0] == pytest.approx(3, abs=0.03)
    assert std[0] == pytest.approx(2, abs=0.03)
    with pytest.raises(ValueError, match="no picture"):
        moments_of([])


def test_what_is_measured_is_kept_and_read_again(tmp_path: Path) -> None:
    """NumPy over every pixel; what lies in the run directory counts when the training goes on."""
    drawn = scenes(6)
    run_dir = write_dataset_of(tmp_path / "run", [[written(one) for one in drawn], [draw_jpeg(1)]])
    found = settled(BANDS, run_dir, tmp_path / "out")
    pixels = np.stack(drawn).reshape(-1, 2)[:, ::-1].astype(np.float64)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(axis=0), rtol=1e-12)
    assert found.bands == (2, 1)
    file = tmp_path / "out" / "normalisation.json"
    kept = json.loads(file.read_text())
    assert settled(BANDS, run_dir, tmp_path / "other") == found
    file.write_text(json.dumps({**kept, "mean": [1.0, 2.0]}))
    assert settled(BANDS, run_dir, tmp_path / "out").mean == (1.0, 2.0)
    # Of another dataset it would be another's.
    file.write_text(json.dumps({**kept, "dataset": "0", "mean": [1.0, 2.0]}))
    assert settled(BANDS, run_dir, tmp_path / "out") == found


def test_pictures_in_rgb_are_imagenets_unless_they_are_measured(tmp_path: Path) -> None:
    run_dir = write_dataset_of(tmp_path / "run", [[draw_jpeg(n) for n in range(4)]])
    assert settled(CropConfig(), run_dir, tmp_path / "out") == IMAGENET
    assert not (tmp_path / "out" / "normalisation.json").exists()
    given = CropConfig(mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert settled(given, run_dir, tmp_path / "out") == Normalisation((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    measured = CropConfig(mean="measured", std="measured")
    found = settled(measured, run_dir, tmp_path / "out")
    pixels = np.stack([picture_of(draw_jpeg(n), measured) for n in range(4)]).reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-12)


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    flat = np.stack([scenes(1)[0][..., 0], np.full((30, 40), 7, np.uint16)], axis=2)
    run_dir = write_dataset_of(tmp_path / "flat", [[written(flat)]])
    with pytest.raises(ConfigError, match=r"the same everywhere.*Leave it out of crops\.bands"):
        settled(BANDS, run_dir, tmp_path / "out")
    run_dir = write_dataset_of(tmp_path / "rgb", [[draw_jpeg(1)]])
    with pytest.raises(IntegrityError, match=r"TIFFs with the bands of crops\.bands"):
        settled(BANDS, run_dir, tmp_path / "out")


def test_a_training_that_begins_elsewhere_keeps_what_was_measured_there(tmp_path: Path) -> None:
    run_dir = write_dataset_of(tmp_path / "run", [[written(one) for one in scenes(2)]])
    theirs, start = Normalisation((1.0, 2.0), (3.0, 4.0), (2, 1)), tmp_path / "start.safetensors"
    save_file({"x": torch.zeros(1)}, start, metadata=metadata_of_normalisation(theirs))
    assert settled(BANDS, run_dir, tmp_path / "out", start=str(start)) == theirs
    with pytest.raises(ConfigError, match="other bands"):
        settled(CropConfig(bands=(1, 2)), run_dir, tmp_path / "other", start=str(start))


def test_what_a_file_tells_of_its_input(tmp_path: Path) -> None:
    def saved(metadata: dict[str, str]) -> Path:
        save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", metadata=metadata)
        return tmp_path / "x.safetensors"

    one = Normalisation((0.1,), (0.2,), (7,))
    assert normalisation_of(saved(metadata_of_normalisation(one))) == one
    assert metadata_of_normalisation(IMAGENET) == {}
    assert normalisation_of(saved({"vit": '{"channels": 3}'})) == IMAGENET
    with pytest.raises(ModelError, match="4 channels"):
        normalisation_of(saved({"vit": '{"channels": 4}'}))
    for text in ('{"mean": [1]}', "no", '{"mean": [1], "std": [0]}', '{"mean": [1, 2], "std": [1]}'):
        with pytest.raises(ModelError, match="is no normalisation"):
            normalisation_of(saved({"normalisation": text}))


def test_batches_of_bands_and_the_order_of_gram_crops(tmp_path: Path) -> None:
    """Crop 1 of all images, then crop 2, as the global ones; at their size an undistorted one is the same."""
    run_dir = write_dataset_of(tmp_path / "run", [[written(one) for one in scenes(5)]])
    images = Images(str(run_dir), cache=tmp_path / "cache", spool=Spool(tmp_path / "spool", 1 << 30))
    crops = CropConfig(
        bands=(1, 2),
        global_size_px=(16, 24),
        gram_size_px=(16, 24),
        local_size_px=8,
        num_local=1,
        blur_kernel_px=3,
        jitter_probability=0,
        blur_sigma_px=(1e-3, 2e-3),
    )
    dataset = StepDataset(
        images,
        order_of(images, DataConfig(), seed=0),
        Share(4),
        crops=crops,
        masking=MaskingConfig(),
        grid=(2, 3),
        seed=0,
        read_threads=1,
    )
    batch = dataset[0]
    assert batch.globals_.shape == (8, 2, 16, 24)
    assert batch.locals_.shape == (4, 2, 8, 8)
    assert batch.masks.shape == (8, 6)
    assert batch.gram is not None
    assert torch.equal(batch.gram, batch.globals_)
    assert not torch.equal(batch.gram[:4], batch.gram[4:])


def test_bands_of_a_file() -> None:
    values = scenes(1)[0].astype(np.float32)
    values[3, 4, 1] = np.nan
    picture = picture_of(written(values), BANDS)
    assert picture is not None
    assert picture.dtype == np.float32
    assert np.array_equal(picture[..., 1], values[..., 0])
    rest = np.delete(values[..., 1].ravel(), 3 * 40 + 4)
    assert picture[3, 4, 0] == pytest.approx(rest.mean(dtype=np.float64))
    assert picture_of(written(values), CropConfig(bands=(3,))) is None
    assert picture_of(draw_jpeg(0), BANDS) is None
    assert picture_of(b"", BANDS) is None
