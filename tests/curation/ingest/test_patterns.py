"""Patterns of files, against `glob` and by hand."""

import glob
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest.patterns import matches, split_pattern
from curation.ingest.problems import Findings
from curation.ingest.source_files import list_units
from curation.ingest.sources import ParquetSource, TarSource

NAMES = ["0.tar", "a/1.tar", "a/b/2.tar", "a/b/c/3.tar", ".s/4.tar", "a/.s/5.tar", "a/.s/._6.tar", "a/x.txt"]


@pytest.mark.parametrize(
    ("pattern", "keys", "is_noted"),
    [
        ("**/*.tar", ["0.tar", "a/1.tar", "a/b/2.tar", "a/b/c/3.tar"], True),
        ("a/**/*.tar", ["a/1.tar", "a/b/2.tar", "a/b/c/3.tar"], True),
        ("*/**/*.tar", ["a/1.tar", "a/b/2.tar", "a/b/c/3.tar"], True),
        ("**/b/**/*.tar", ["a/b/2.tar", "a/b/c/3.tar"], True),
        ("**/**/[23].tar", ["a/b/2.tar", "a/b/c/3.tar"], True),
        ("**/b/*.tar", ["a/b/2.tar"], True),
        ("a/b/**", ["a/b/2.tar", "a/b/c/3.tar"], False),
        ("{a,none}/b/{*,**/3}.tar", ["a/b/2.tar", "a/b/c/3.tar"], False),
        ("*/.s/*.tar", ["a/.s/5.tar"], True),
        ("**/.s/*.tar", [".s/4.tar", "a/.s/5.tar"], True),
        ("*/.s/._*.tar", ["a/.s/._6.tar"], False),
        ("**/._*.tar", ["._z.tar"], True),  # `**` enters no hidden folder
    ],
)
def test_tars_of_a_pattern(
    tmp_path: Path, write_tar: Callable[..., Path], pattern: str, keys: list[str], *, is_noted: bool
):
    for name in NAMES:
        write_tar(tmp_path / name, {"x.jpg": b"x"})
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "b").mkdir()
    write_tar(tmp_path / "._z.tar", {})
    findings = Findings()
    found = [unit.path for unit in list_units(TarSource(path=f"{tmp_path}/{pattern}"), findings)]
    assert found == [f"{tmp_path}/{key}" for key in keys]
    assert findings.problems == []
    assert {note.what for note in findings.notes} == ({"hidden"} if is_noted else set())


def test_rings_of_links_end_and_each_file_comes_once(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1.parquet").write_bytes(b"x")
    (tmp_path / "a" / "b" / "ring").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to("a/b")
    findings = Findings()
    found = [u.key for u in list_units(ParquetSource(path=f"{tmp_path}/**/*.parquet"), findings)]
    assert found == ["a/b/1.parquet"]
    assert {note.what for note in findings.notes} == {"link_ring", "link_repeated"}


PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4)
WANTED = st.lists(st.sampled_from(["a", "*", "**", "a*", "?"]), min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(parts=PARTS, wanted=WANTED)
def test_a_path_matches_as_in_glob(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], wanted: list[str]
):
    root = tmp_path_factory.mktemp("g")
    path = root.joinpath(*parts[:-1], parts[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    pattern = "/".join(wanted)
    found = glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207
    assert matches(parts, split_pattern(pattern)) == ("/".join(parts) in found)
