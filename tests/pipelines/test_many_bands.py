"""Four bands of 16 bits, from a folder to an exported model: curated, trained on, exported, loaded again."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from curation.errors import ConfigError
from pipelines.config.run_config import validate
from pipelines.engine.progress import Progress
from pipelines.run import run
from pretrain.config import PretrainConfig
from pretrain.export import export
from pretrain.normalisation import normalisation_of
from pretrain.train import train
from pretrain.weights import load_backbone

NUM_IMAGES, HEIGHT_PX, WIDTH_PX = 16, 72, 88
# What a sensor gives: dark, of another range in every band; the fourth has nothing to do with colour.
OFFSETS, SPREADS = np.array([300, 500, 800, 4000]), np.array([200, 300, 500, 3000])


def draw_scene(seed: int) -> np.ndarray:
    """Smooth fields with a bright block, uint16, (h, w, 4)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX] / HEIGHT_PX
    waves = rng.uniform(2, 14, (4, 2))
    scene = np.stack([np.sin(a * rows + seed) * np.cos(b * columns - seed) for a, b in waves], axis=2)
    top, left = rng.integers(0, HEIGHT_PX // 2, 2)
    scene[top : top + 24, left : left + 24] += rng.normal(1, 1, 4)
    return (OFFSETS + SPREADS * (scene + 1) + rng.normal(0, 20, scene.shape)).clip(0, 65535).astype(np.uint16)


def curate(root: Path) -> Path:
    """A run over a folder of scenes, one of them twice and one that lacks a band."""
    folder = root / "scenes"
    folder.mkdir()
    how: dict[str, Any] = {"planarconfig": "contig", "photometric": "minisblack", "compression": "zlib"}
    for seed in range(NUM_IMAGES):
        tifffile.imwrite(folder / f"{seed:02}.tif", draw_scene(seed), **how)
    tifffile.imwrite(folder / "copy.tif", draw_scene(0), **how | {"compression": "lzw"})
    tifffile.imwrite(folder / "three.tif", draw_scene(99)[..., :3], **how)
    data = {
        "run_dir": str(root / "run"),
        "pools": {
            "scenes": {
                "role": "curated",
                "sources": [{"kind": "folder", "path": str(folder)}],
                "retrieve": {"method": "none"},
            }
        },
        "describe": {
            "embed": {"embedder": "gist"},
            "decode": {"bands": {"channels": [4, 3, 2]}},
            "decode_threads": 1,
        },
        "executor": {"kind": "local", "threads": 1},
    }
    result = run(validate(data, where="the test's config"), progress=Progress(quiet=True))
    assert result.exit_code == 0
    return root / "run"


def shard_samples(run_dir: Path) -> dict[str, dict[str, Any]]:
    """The JSON of every sample, by its original key."""
    [folder] = run_dir.glob("dataset-*")
    found = {}
    for path in sorted(folder.rglob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name, content in members.items():
            if name.endswith(".json"):
                meta = json.loads(content)
                meta["image"] = members[name.removesuffix("json") + "tif"]
                found[name] = meta
    return found


def training(run_dir: Path, out: Path) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "run_dir": str(out),
            "batch_images": 4,
            "data": {"path": str(run_dir), "workers": 0},
            "model": {"arch": "vit_micro", "depth": 1, "patch_px": 8, "channels": 4, "drop_path": 0.0},
            "heads": {"prototypes": 16, "hidden_dim": 16, "bottleneck_dim": 8},
            "crops": {
                "bands": [1, 2, 3, 4],
                "global_size_px": [24, 40],
                "local_size_px": 16,
                "num_local": 2,
                "blur_kernel_px": 3,
            },
            "schedule": {"iterations": 2, "lr_warmup": 1},
            "checkpoint": {"every": 1},
            "parallel": {"device": "cpu", "dtype": "fp32", "threads": 1},
        }
    )


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curate(tmp_path_factory.mktemp("bands"))


def test_shards_hold_the_files_as_they_are(curated: Path) -> None:
    """The copy in another packing is found by how it looks; the file that lacks band 4 is no picture here."""
    samples = shard_samples(curated)
    assert len(samples) == NUM_IMAGES
    for meta in samples.values():
        assert (meta["width"], meta["height"]) == (WIDTH_PX, HEIGHT_PX)
        bands = tifffile.imread(io.BytesIO(meta["image"]))
        assert bands.dtype == np.uint16
        assert bands.shape == (HEIGHT_PX, WIDTH_PX, 4)


def test_a_model_of_four_bands_is_trained_and_exported(curated: Path, tmp_path: Path) -> None:
    """What was measured goes along: into the run directory, its checkpoints, and the exported file."""
    folder = train(training(curated, tmp_path / "trained"), quiet=True)
    found = normalisation_of(folder)
    assert found.bands == (1, 2, 3, 4)
    expected = np.stack([draw_scene(seed) for seed in range(NUM_IMAGES)]).reshape(-1, 4)
    np.testing.assert_allclose(found.mean, expected.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.std, expected.std(axis=0), rtol=1e-9)
    kept = json.loads((tmp_path / "trained" / "normalisation.json").read_text())
    assert kept["mean"] == list(found.mean)
    out = export(folder, format="safetensors", out=tmp_path / "model.safetensors")
    assert normalisation_of(out) == found
    model = load_backbone(out)
    assert (model.config.channels, model.config.grid) == (4, 4)  # 3 x 5 patches: the nearest square
    images = (torch.from_numpy(expected[: 24 * 40].astype(np.float32)).T.reshape(1, 4, 24, 40) - 500) / 500
    [features] = model([images])
    assert features.patches.shape == (1, 15, 96)
    again = load_backbone(folder)
    assert torch.equal(again([images])[0].cls, features.cls)


def test_a_training_on_bands_goes_on_bit_for_bit(curated: Path, tmp_path: Path) -> None:
    """Its last checkpoint lost, it takes the last step again, with the numbers that it measured at first."""
    config = training(curated, tmp_path / "trained")
    folder = train(config, quiet=True)
    before = (folder / "teacher.safetensors").read_bytes()
    shutil.rmtree(folder)
    assert train(config, quiet=True) == folder
    assert (folder / "teacher.safetensors").read_bytes() == before


def test_what_would_lose_bands_is_refused(tmp_path: Path) -> None:
    pools = {"all": {"role": "curated", "sources": [{"kind": "folder", "path": str(tmp_path)}]}}
    data = {
        "pools": pools,
        "describe": {"decode": {"bands": {"channels": [1]}}},
        "shard": {"max_side_px": 512},
    }
    with pytest.raises(ConfigError, match=r"shard\.max_side_px would put 8-bit pictures"):
        validate(data, where="the test's config")
