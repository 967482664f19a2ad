"""What a training is trained on, from its config: mixtures, and datasets that are too small."""

import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
from drawn_dataset import draw_jpeg, write_drawn
from foreign_tars import write_webdataset
from pydantic import ValidationError

from curation.errors import ConfigError
from pretrain.data.config import DataConfig
from pretrain.data.image_set import ImageSet
from pretrain.data.mix import MixedImages
from pretrain.data.opening import open_images
from pretrain.data.spool import Spool


def opened(
    config: dict[str, object], folder: Path, *, batch_images: int | None = None, max_bytes: int = 1 << 30
) -> tuple[ImageSet, list[str]]:
    said: list[str] = []
    images = open_images(
        DataConfig.model_validate(config),
        cache=folder / "cache",
        spool=Spool(folder / "spool", max_bytes),
        batch_images=batch_images,
        say=said.append,
    )
    return images, said


def test_a_mixture_of_ours_and_others(drawn: Path, tmp_path: Path) -> None:
    foreign = write_webdataset(tmp_path / "data")
    mix = [{"path": str(drawn), "weight": 3}, {"path": f"{tmp_path}/data/*.tar", "name": "other"}]
    images, said = opened({"mix": mix}, tmp_path, batch_images=8)
    assert isinstance(images, MixedImages)
    assert isinstance(images, ImageSet)
    assert images.num_images == 57
    assert [images.read(row) for row in (0, 36, 37, 56)] == [
        draw_jpeg(0), draw_jpeg(36), foreign[0], foreign[19]
    ]  # fmt: skip
    assert images.describe() == "75.0% run (37 images), 25.0% other (20 images); resumes exactly"
    assert said == [f"indexing 3 tars of {tmp_path}/data/*.tar"]
    again = pickle.loads(pickle.dumps(images))
    assert again.read(40) == foreign[3]
    rows = images.order(seed=0, window_images=100).rows(np.arange(2000))
    assert (rows < 37).sum() == 1500
    # What a weight is written as changes nothing, what it says does.
    same = [{**mix[0], "weight": 0.75}, {**mix[1], "weight": 0.25}]
    assert opened({"mix": same}, tmp_path)[0].digest == images.digest
    assert opened({"mix": [mix[0], {**mix[1], "weight": 2}]}, tmp_path)[0].digest != images.digest
    assert opened({"mix": mix[::-1]}, tmp_path)[0].digest != images.digest


def test_datasets_of_one_size_go_their_own_ways(drawn: Path, tmp_path: Path) -> None:
    images, _ = opened({"mix": [{"path": str(drawn)}, {"path": str(drawn)}]}, tmp_path)
    rows = images.order(seed=0, window_images=1).rows(np.arange(74))
    first, second = rows[rows < 37], rows[rows >= 37] - 37
    num = min(len(first), len(second))
    assert (first[:num] != second[:num]).any()


def test_a_stream_is_not_mixed(drawn: Path, tmp_path: Path) -> None:
    mix = [{"path": str(drawn)}, {"path": "https://h/x.tar"}]
    with pytest.raises(ConfigError, match=r"data\.mix has a stream in it.*https://h/x\.tar.*Fetch the tars"):
        opened({"mix": mix}, tmp_path)


def test_the_shards_of_all_parts_must_fit_the_spool(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    for name in ("a", "b"):
        fs.put(str(write_drawn(tmp_path / name, shard_sizes=(3, 4))), f"/bucket/{name}", recursive=True)
    try:
        mix = {"mix": [{"path": f"memory://bucket/{name}"} for name in ("a", "b")]}
        images, _ = opened(mix, tmp_path)
        assert images.reads_wait
        needed = images.spooled_bytes(100_000)
        assert needed == 2 * images.parts[0].spooled_bytes(100_000) > 0
        opened(mix, tmp_path, max_bytes=needed)
        with pytest.raises(ConfigError, match="spool_bytes"):
            opened(mix, tmp_path, max_bytes=needed - 1)
    finally:
        fs.rm("/bucket", recursive=True)


def test_a_dataset_smaller_than_a_batch_is_refused(drawn: Path, tmp_path: Path) -> None:
    assert opened({"path": str(drawn)}, tmp_path, batch_images=37)[1] == []
    with pytest.raises(ConfigError, match=r"37 images for 38 in a batch.*allow_repeats: true"):
        opened({"path": str(drawn)}, tmp_path, batch_images=38)
    _, [line] = opened({"path": str(drawn), "allow_repeats": True}, tmp_path, batch_images=38)
    assert "37 for 38; KoLeo pushes an image from itself" in line
    small = {"path": str(write_drawn(tmp_path / "few", shard_sizes=(3,))), "weight": 0.1}
    mix = {"mix": [{"path": str(drawn), "weight": 0.9}, small]}
    opened(mix, tmp_path, batch_images=30)
    with pytest.raises(ConfigError, match=r"few has fewer .*3 images for 4"):
        opened(mix, tmp_path, batch_images=31)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"path": "a", "mix": [{"path": "b"}]}, "path and mix are both set"),
        ({"mix": []}, "at least 1 item"),
        ({"mix": [{"path": "a", "weight": 0}]}, "greater than 0"),
        ({"mix": [{"path": "a", "weight": float("inf")}]}, "finite"),
        ({"mix": [{"path": "a", "weight": 5000}, {"path": "b"}]}, "b comes to less than one image in 1,000"),
        ({"extensions": [".JPG"]}, "lower case and without its dot"),
    ],
)
def test_what_means_nothing_is_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DataConfig.model_validate(config)
