import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from planted import KINDS, measure, plant

from curation.schema import LINEAGE
from pipelines.demo.score import Share


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    keys = [
        f"{folder}/{index}.jpg"
        for folder in ("imagenette/train/a", "imagenette/val/a", "pool/photos")
        for index in range(24)
    ] + ["neardup/x.jpg"]
    for key in keys:
        path = tmp_path / "real" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(path)
    vectors = rng.normal(size=(len(keys), 8)).astype(np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    table = pa.table({"key": keys, "embedding": column})
    pq.write_table(table, tmp_path / "real" / "mobilenet_embeddings.parquet")
    return tmp_path


def test_plants_every_kind_of_every_role_with_its_parents_vector(photographs):
    real, out = photographs / "real", photographs / "out"
    truth = plant(real, out, num=36, seed=1).to_pylist()
    assert {row["kind"] for row in truth} == set(KINDS)
    assert [
        sum(row["parent_pool"] == role for row in truth) for role in ("uncurated", "curated", "holdout")
    ] == [18, 9, 9]
    assert len({row["parent_key"] for row in truth}) == 36
    table = pq.read_table(out / "embeddings.parquet")
    vectors = dict(zip(table["key"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    assert len(table) == 73 + 36
    for row in truth:
        assert vectors[row["key"]] == vectors[row["parent_key"]]
        if row["kind"] == "exact":
            assert (out / row["key"]).read_bytes() == (real / row["parent_key"]).read_bytes()


def test_the_seed_decides_every_byte(photographs):
    once, again = (plant(photographs / "real", photographs / name, num=18, seed=2) for name in ("a", "b"))
    assert once.equals(again)
    for key in once["key"].to_pylist():
        assert (photographs / "a" / key).read_bytes() == (photographs / "b" / key).read_bytes()


def test_measure_by_hand():
    truth = pa.table(
        {
            "key": ["planted/0.jpg", "planted/1.jpg", "planted/2.jpg"],
            "kind": ["resize", "resize", "reencode"],
            "parent_pool": ["uncurated", "curated", "holdout"],
            "parent_key": ["pool/a.jpg", "imagenette/train/b.jpg", "imagenette/val/c.jpg"],
        }
    )
    rows = [
        ("mine", "pool/a.jpg", "kept", "select", "sampled", None, None),
        ("anchors", "imagenette/train/b.jpg", "kept", "select", "curated", None, None),
        ("test", "imagenette/val/c.jpg", "dropped", "select", "holdout", None, None),
        ("mine", "planted/0.jpg", "dropped", "dedup", "near_copy", "mine", "pool/a.jpg"),
        ("mine", "planted/1.jpg", "dropped", "dedup", "near_copy", "mine", "pool/a.jpg"),  # the wrong one
        (
            "mine",
            "planted/2.jpg",
            "dropped",
            "decontaminate",
            "leaks_holdout",
            "test",
            "imagenette/val/c.jpg",
        ),
    ]
    given = ("pool", "key", "decision", "stage", "reason", "by_pool", "by_key")
    blank = dict.fromkeys(LINEAGE.names) | {"uri": "file"}
    lineage = pa.Table.from_pylist(
        [blank | dict(zip(given, row, strict=True)) for row in rows], schema=LINEAGE
    )
    measured = measure(truth, lineage)
    assert measured.recall == {"resize": Share(1, 2)}
    assert measured.precision_all == Share(1, 2)
    assert measured.leaks == {"reencode": Share(1, 1)}
    assert measured.leaks_named == Share(1, 1)
