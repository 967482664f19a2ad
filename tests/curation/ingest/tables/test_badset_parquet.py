"""The bad parquet files that hold images, and those that are no parquet, against INDEX.tsv."""

from pathlib import Path

import pytest

from curation import storage
from curation.errors import ConfigError
from curation.ingest.rows import FoundRows
from curation.ingest.sources import ParquetSource
from curation.ingest.stage_unit import stage_unit
from curation.ingest.staging import Place
from curation.ingest.units import Unit

# file: reasons of the rows (None: an image), problems.
EXPECTED: dict[str, tuple[list[str | None], list[str]]] = {
    "null_image_bytes.parquet": ([None, "missing_image", None], []),
    "hf_struct.parquet": ([None, "missing_image", "missing_image"], []),
    "zero_rows.parquet": ([], []),
    "zero.parquet": ([], ["empty_file"]),
    "trunc_50pct.parquet": ([], ["not_parquet"]),
    "no_magic_tail.parquet": ([], ["not_parquet"]),
    "text.parquet": ([], ["not_parquet"]),
    "footer_len_2GB.parquet": ([], ["not_parquet"]),
}
# Lists of URLs, which have no column of image bytes: as a source of images each is a config error.
URL_LISTS = {
    "good.parquet", "torn_page.parquet", "null_urls.parquet", "null_bytes.parquet", "missing_column.parquet",
    "wrong_type.parquet", "dup_columns.parquet", "large_string_2MB_url.parquet", "schema_drift_b.parquet",
    "formula_captions.parquet", "ssrf_urls.parquet",
}  # fmt: skip
# Where this differs from INDEX.tsv, and why.
EXCEPTIONS = {
    "null_image_bytes.parquet": "the empty image is a row whose bytes are none: describe calls it `empty`",
    "footer_len_2GB.parquet": "called not_parquet: a footer that cannot be found is no footer",
    "trunc_50pct.parquet": "likewise",
    "no_magic_tail.parquet": "likewise",
}


def staged(path: Path, out: Path) -> FoundRows:
    unit = Unit(storage.stat(str(path)))
    return stage_unit(ParquetSource(path=str(path)), unit, Place(out, "f"), before=None)


def test_every_file_of_the_set_is_covered(shared_dir: Path):
    names = {path.name for path in (shared_dir / "badset" / "parquet").iterdir()}
    assert names == set(EXPECTED) | URL_LISTS
    assert set(EXCEPTIONS) <= names


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_bad_file(shared_dir: Path, name: str, tmp_path: Path):
    path = shared_dir / "badset" / "parquet" / name
    found = staged(path, tmp_path)
    reasons, problems = EXPECTED[name]
    assert found.table["reason"].to_pylist() == reasons
    assert [problem.what for problem in found.problems] == problems
    assert all(problem.path == str(path) for problem in found.problems)
    sizes = found.table["num_bytes"].to_pylist()
    if name == "null_image_bytes.parquet":
        assert (sizes[0] > 0, sizes[2]) == (True, 0)


@pytest.mark.parametrize("name", sorted(URL_LISTS))
def test_a_list_of_urls_is_no_table_of_images(shared_dir: Path, name: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=name) as error:
        staged(shared_dir / "badset" / "parquet" / name, tmp_path)
    assert "url" in str(error.value) or "link" in str(error.value)
