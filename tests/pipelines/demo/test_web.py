import io
import json
import tarfile
from collections import Counter

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.config.run_config import validate
from pipelines.demo.edits import EDITS
from pipelines.demo.score import BROKEN_REASONS, TRUTH
from pipelines.demo.web import (
    CURATED,
    FOLDERS,
    HOLDOUT,
    LEAKS,
    TARS,
    UNCURATED,
    demo_config,
    draw_web,
    plan_web,
)

NUM_IMAGES = 320


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    root = tmp_path_factory.mktemp("web")
    return root, draw_web(root, seed=3, num_images=NUM_IMAGES)


def read_files(root):
    """(pool, key) -> bytes of everything that a run would find."""
    found = {}
    for pool, folder in FOLDERS.items():
        base = root / folder
        for path in base.rglob("*"):
            if path.is_file():
                found[pool, str(path.relative_to(base))] = path.read_bytes()
    for path in sorted((root / TARS).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.name.endswith((".txt", ".json")):
                    found[UNCURATED, f"{path.name}/{member.name}"] = tar.extractfile(member).read()
    return found


def test_truth_lists_every_file_once(web):
    root, truth = web
    names = list(zip(truth["pool"].to_pylist(), truth["key"].to_pylist(), strict=True))
    assert truth.schema == TRUTH
    assert len(set(names)) == len(names)
    assert set(names) == set(read_files(root))
    assert pq.read_table(root / "truth.parquet").equals(truth)


def test_every_kind_is_planted_and_parents_are_originals(web):
    _, truth = web
    rows = truth.to_pylist()
    kinds = Counter(row["kind"] for row in rows)
    assert set(kinds) == {"original", "exact", *EDITS, *LEAKS, *BROKEN_REASONS}
    by_name = {(row["pool"], row["key"]): row for row in rows}
    for row in rows:
        if row["parent_key"] is not None:
            parent = by_name[row["parent_pool"], row["parent_key"]]
            assert parent["kind"] == "original"
            assert (parent["pool"] == HOLDOUT) == row["kind"].startswith("leak_")
            assert parent["concept"] == row["concept"]
    assert {row["pool"] for row in rows if row["kind"].startswith("leak_")} == {CURATED, UNCURATED}


def test_the_web_has_a_longer_tail_than_the_curated_set(web):
    _, truth = web
    rows = truth.to_pylist()
    concepts = {pool: Counter(row["concept"] for row in rows if row["pool"] == pool) for pool in FOLDERS}
    concepts[UNCURATED].pop(None)
    assert set(concepts[CURATED]) == set(concepts[HOLDOUT])
    assert set(concepts[CURATED]) < set(concepts[UNCURATED])
    assert max(concepts[UNCURATED].values()) > 10 * min(concepts[UNCURATED].values())


def test_files_are_what_the_truth_says(web):
    root, truth = web
    files = read_files(root)
    for row in truth.to_pylist():
        data = files[row["pool"], row["key"]]
        parent = files.get((row["parent_pool"], row["parent_key"]))
        if row["kind"] in ("exact", "leak_exact"):
            assert data == parent
        elif row["kind"] == "broken_empty":
            assert data == b""
        elif row["kind"] == "broken_bomb":
            assert len(data) < 200
            assert int.from_bytes(data[16:20], "big") >= 30_000
        elif row["kind"] == "broken_truncated":
            with pytest.raises(OSError, match="truncated"):
                Image.open(io.BytesIO(data)).load()
        elif not row["kind"].startswith("broken_"):
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                assert min(image.size) >= 80


def test_tar_samples_carry_their_sidecars(web):
    root, _ = web
    with tarfile.open(sorted((root / TARS).glob("*.tar"))[0]) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    images = [name for name in members if not name.endswith((".txt", ".json"))]
    assert len(members) == 3 * len(images)
    for name in images:
        stem = name.rsplit(".", 1)[0]
        assert members[f"{stem}.txt"].decode()
        assert json.loads(members[f"{stem}.json"])["licence"] == "CC0-1.0"


def test_the_seed_decides_every_byte(web, tmp_path):
    root, truth = web
    again = draw_web(tmp_path, seed=3, num_images=NUM_IMAGES, num_threads=1)
    assert again.equals(truth)
    assert read_files(tmp_path) == read_files(root)
    assert plan_web(seed=4, num_images=NUM_IMAGES) != plan_web(seed=3, num_images=NUM_IMAGES)


def test_config_points_at_the_web(web, tmp_path):
    root, _ = web
    config = demo_config(root, tmp_path / "run")
    assert [pool["role"] for pool in config["pools"].values()] == ["curated", "uncurated", "holdout"]
    for pool in config["pools"].values():
        for source in pool["sources"]:
            assert (root / source["path"]).is_dir()


def test_config_is_one_that_lvd_accepts(tmp_path):
    config = validate(demo_config(tmp_path / "web", tmp_path / "run"), where="demo")
    assert config.pools[CURATED].retrieval.method == "sample"


def test_full_size_plan_is_of_the_size_asked_for():
    assert 3_300 <= len(plan_web(seed=0, num_images=3_600).items) <= 3_900
