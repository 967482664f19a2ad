"""Heads, faces and thresholds in a whole run: what is done again when one changes, and what comes out."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from drawn_face import draw_face
from PIL import Image
from torch import nn

from curation.errors import ConfigError
from curation.shard.read import ShardReader
from pipelines.config.run_config import RunConfig, validate
from pipelines.report.write import write_report
from pipelines.run import RunResult

Run = Callable[..., RunResult]
DIM = 8
NUM_SCENES, NUM_FACES = 12, 3


def scene(number: int) -> np.ndarray:
    coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC))


def turned(pixels: np.ndarray) -> tuple[np.ndarray, Image.Exif]:
    """The picture lying on its side, and the EXIF that tells so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return np.rot90(pixels), exif


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, a blank, faces (a PNG, a JPEG, a JPEG on its side), vectors of them, and a head."""
    root = tmp_path_factory.mktemp("verdicts")
    files = root / "files"
    files.mkdir()
    for number in range(NUM_SCENES):
        Image.fromarray(scene(number)).save(files / f"scene-{number:02d}.jpg", quality=92)
    Image.new("RGB", (90, 90), (240, 240, 240)).save(files / "blank.png")
    sizes = (150, 165, 180)
    Image.fromarray(draw_face(320, sizes[0])).save(files / "face-0.png")
    Image.fromarray(draw_face(320, sizes[1])).save(files / "face-1.jpg", quality=90)
    lying, exif = turned(draw_face(320, sizes[2]))
    Image.fromarray(lying).save(files / "face-2.jpg", quality=90, exif=exif)
    keys = sorted(path.name for path in files.iterdir())
    vectors = np.random.default_rng(5).normal(size=(len(keys), DIM)).astype(np.float32)
    table = {"key": keys, "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)}
    pq.write_table(pa.table(table), root / "vectors.parquet")
    torch.manual_seed(0)
    torch.save(nn.Linear(DIM, 1).state_dict(), root / "head.pth")
    return root


def config(pool: Path, run_dir: Path, *, heads: tuple[str, ...] = (), **sections: Any) -> RunConfig:
    head = {"kind": "weights", "weights": str(pool / "head.pth"), "form": "linear"}
    describe = {
        "embed": {"embedder": f"precomputed:{pool / 'vectors.parquet'}"},
        "heads": dict.fromkeys(heads, head),
        **sections.pop("describe", {}),
    }
    data = {
        "name": "v",
        "run_dir": str(run_dir),
        "pools": {"web": {"role": "uncurated", "sources": [{"kind": "folder", "path": str(pool / "files")}]}},
        "ingest": {"part_rows": 6},
        "describe": describe,
        "executor": {"kind": "local"},
        **sections,
    }
    return validate(data, where="a test")


def done(result: RunResult) -> set[str]:
    """The steps that had something to do."""
    return {state.name for state in result.states if state.num_done < state.num_items}


def test_thresholds_and_heads_read_no_image_again(pool: Path, tmp_path: Path, run_quietly: Run) -> None:
    run_dir = tmp_path / "run"
    first = run_quietly(config(pool, run_dir))
    assert {"describe", "judge"} <= done(first)
    scored = run_quietly(config(pool, run_dir, heads=("aesthetic",)))
    assert {"describe", "ingest"} & done(scored) == set()
    assert "score" in done(scored)
    bounded = run_quietly(config(pool, run_dir, heads=("aesthetic",), judge={"min_aesthetic": 0.0}))
    assert {"describe", "score"} & done(bounded) == set()
    assert "judge" in done(bounded)
    head = torch.load(pool / "head.pth", weights_only=True)
    table = pq.read_table(pool / "vectors.parquet")
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    low = vectors @ head["weight"].double().numpy()[0] + head["bias"].item() < 0
    manifest = json.loads((run_dir / "manifest.json").read_text("utf-8"))
    lineage = pa.concat_tables([pq.read_table(run_dir / entry["path"]) for entry in manifest["lineage"]])
    reasons = dict(zip(lineage["key"].to_pylist(), lineage["reason"].to_pylist(), strict=True))
    assert 0 < low.sum() < len(low)
    for key, is_low in zip(table["key"].to_pylist(), low.tolist(), strict=True):
        assert (reasons[key] == "low_aesthetic") == is_low


def blurred_run(pool: Path, run_dir: Path, **sections: Any) -> RunConfig:
    return config(
        pool,
        run_dir,
        describe={"faces": {}},
        shard={"blur_faces": {}},
        judge={"min_pixel_std": 2.0},
        **sections,
    )


@pytest.fixture(scope="module")
def blurred(pool: Path, tmp_path_factory: pytest.TempPathFactory, run_quietly: Run) -> Path:
    run_dir = tmp_path_factory.mktemp("blurred") / "run"
    run_quietly(blurred_run(pool, run_dir))
    return run_dir


def samples(run_dir: Path) -> dict[str, Any]:
    [folder] = run_dir.glob("dataset-*")
    reader = ShardReader(str(folder))
    return {sample.meta["key"]: sample for sample in reader.iterate()}


def test_faces_are_blurred_in_the_shards(pool: Path, blurred: Path) -> None:
    made = samples(blurred)
    for name, extension in (("face-0.png", "png"), ("face-1.jpg", "jpg"), ("face-2.jpg", "jpg")):
        original, sample = (pool / "files" / name).read_bytes(), made[name]
        assert sample.key == sample.meta["image_id"] == hashlib.sha256(original).hexdigest()[:32]
        assert sample.meta["edits"] == ["faces_blurred"]
        assert sample.meta["content_sha256"] == hashlib.sha256(sample.data).hexdigest()
        assert sample.ext == extension
        with Image.open(io.BytesIO(sample.data)) as image:
            assert image.size == (sample.meta["width"], sample.meta["height"]) == (320, 320)
            assert not image.getexif()
            after = np.asarray(image.convert("L")).astype(int)
        # The one that lay on its side stands upright, and its eyes are gone like the others'.
        before = draw_face(320, 180)[..., 0].astype(int)
        if name == "face-2.jpg":
            assert np.abs(after - before)[:30].mean() < 4
        eyes = (slice(125, 160), slice(100, 220))
        assert after[eyes].std() < 0.55 * before[eyes].std()
    for number in range(NUM_SCENES):
        name = f"scene-{number:02d}.jpg"
        if name in made and "edits" not in made[name].meta:
            assert made[name].data == (pool / "files" / name).read_bytes()
    assert "blank.png" not in made


def test_the_report_shows_faces_and_thresholds(blurred: Path) -> None:
    page = Path(write_report(str(blurred))).read_text("utf-8")
    assert 'id="faces"' in page
    assert "in the dataset, " in page
    assert ", blurred." in page
    assert 'id="filters"' in page
    assert "<code>min_pixel_std</code> 2, of 16 measured images" in page
    assert page.count('class="tile refused"') == 1  # the blank


@pytest.mark.ray
@pytest.mark.accept
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_ray_gives_the_same_bytes(
    pool: Path, tmp_path: Path, run_quietly: Run, digests: Callable[[Path], dict[str, str]]
) -> None:
    made = {}
    for kind in ("local", "ray"):
        run_dir = tmp_path / kind
        run_quietly(
            blurred_run(pool, run_dir, heads=("nsfw", "aesthetic"), executor={"kind": kind, "num_cpus": 2})
        )
        made[kind] = digests(run_dir)
    assert made["local"] == made["ray"]


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"judge": {"max_nsfw": 0.5}}, r"judge\.max_nsfw \(0\.5\).*describe\.heads\.nsfw"),
        ({"shard": {"blur_faces": {}}}, r"shard\.blur_faces.*describe\.faces"),
        ({"describe": {"embed": {"embedder": "gist"}}, "heads": ("nsfw",)}, r"describe\.heads\.embedder"),
        ({"shard": {"blur_faces": {"strength": 0}}}, r"shard\.blur_faces\.strength"),
    ],
)
def test_what_cannot_mean_anything(pool: Path, tmp_path: Path, sections: dict[str, Any], says: str) -> None:
    heads = sections.pop("heads", ())
    describe = sections.get("describe", {})
    if heads:
        head = {"kind": "weights", "weights": str(pool / "head.pth"), "form": "linear"}
        sections["describe"] = {**describe, "heads": dict.fromkeys(heads, head)}
    with pytest.raises(ConfigError, match=says):
        config(pool, tmp_path, **sections)


def test_a_head_that_does_not_fit_stops_the_run_before_it_starts(
    pool: Path, tmp_path: Path, run_quietly: Run
) -> None:
    torch.save(nn.Linear(DIM + 1, 1).state_dict(), tmp_path / "wide.pth")
    wide = {"kind": "weights", "weights": str(tmp_path / "wide.pth"), "form": "linear"}
    bad = config(pool, tmp_path / "run", describe={"heads": {"nsfw": wide}})
    with pytest.raises(ConfigError, match="9 numbers, and vectors of 8"):
        run_quietly(bad)
    assert not (tmp_path / "run" / "steps").exists()
