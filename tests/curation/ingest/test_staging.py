"""Images written into tars: what the rows say is where the bytes are."""

import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest.rows import ImageRow
from curation.ingest.staging import Place, StagedImage, stage_images

IMAGES = st.lists(
    st.builds(
        StagedImage,
        key=st.text(st.characters(codec="utf-8"), max_size=8),
        uri=st.just("u"),
        data=st.binary(max_size=1500),
        sidecars=st.dictionaries(
            st.text(st.characters(codec="utf-8"), max_size=5), st.binary(max_size=900), max_size=3
        ),
    ),
    max_size=8,
)


def read(folder: Path, place: dict[str, Any]) -> bytes:
    """The bytes at a place that a row names."""
    data = (folder / place["path"].removeprefix("folder/")).read_bytes()
    return data[place["offset"] : place["offset"] + place["num_bytes"]]


@settings(max_examples=60, deadline=None)
@given(images=IMAGES, max_tar_bytes=st.integers(1, 20_000))
def test_rows_point_at_the_bytes(
    images: list[StagedImage], max_tar_bytes: int, tmp_path_factory: pytest.TempPathFactory
):
    root = tmp_path_factory.mktemp("s")
    tables = []
    for name in ("one", "two"):
        (root / name).mkdir()
        place = Place(root / name, "folder")
        tables.append(
            stage_images(images, place, version="v", max_image_bytes=1200, max_tar_bytes=max_tar_bytes)
        )
    assert tables[0].equals(tables[1])
    tars = sorted(path.name for path in (root / "one").iterdir())
    for tar in tars:
        assert (root / "one" / tar).read_bytes() == (root / "two" / tar).read_bytes()
        with tarfile.open(root / "one" / tar) as opened:
            assert len(opened.getmembers()) == len({m.name for m in opened})
    for image, row in zip(images, tables[0].to_pylist(), strict=True):
        assert (row["key"], row["uri"], row["version"]) == (image.key, "u", "v")
        assert {s["name"]: read(root / "one", s) for s in row["sidecars"]} == image.sidecars
        if len(image.data or b"") > 1200:
            assert (row["reason"], row["num_bytes"]) == ("file_too_large", 0)
        else:
            assert (row["reason"], read(root / "one", row)) == (None, image.data)


def test_tars_are_of_bounded_size(tmp_path: Path):
    images = [StagedImage(f"{i}.jpg", "u", bytes(9_000)) for i in range(50)]
    table = stage_images(
        images, Place(tmp_path, "f"), version="v", max_image_bytes=1 << 20, max_tar_bytes=100_000
    )
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert max(sizes) <= 110_000
    assert len(sizes) == 5
    assert table["path"].to_pylist() == [f"f/{i // 10:06d}.tar" for i in range(50)]
    assert all(row["offset"] % 512 == 0 for row in table.to_pylist())


def test_a_row_that_was_staged_before_stays_as_it_is(tmp_path: Path):
    row = ImageRow("k", "u", "earlier/000000.tar", 512, 3, "v", [], None)
    failed = StagedImage("l", "u", None, "missing_image")
    table = stage_images([row, failed], Place(tmp_path, "f"), version="v", max_image_bytes=10)
    first, second = table.to_pylist()
    assert (first["path"], first["offset"], first["num_bytes"]) == ("earlier/000000.tar", 512, 3)
    assert (second["reason"], second["num_bytes"]) == ("missing_image", 0)
