"""Whose caption is whose, where names come again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import storage
from curation.ingest.rows import FoundRows, read_sample, read_sidecars
from curation.ingest.sidecars import SidecarRule, StoredFile
from curation.ingest.sources import TarSource
from curation.ingest.tars.tar_index import index_tar
from curation.ingest.tars.tar_samples import group_samples
from curation.ranges import RangeReader


def index_of(path: Path) -> FoundRows:
    return index_tar(storage.stat(str(path)), TarSource(path=str(path)))


def captions(index: FoundRows) -> dict[str, str]:
    """Of each image, told by its bytes, what its sidecars hold."""
    with RangeReader() as reader:
        return {
            read_sample(reader, row).decode(): " ".join(
                data.decode() for data in read_sidecars(reader, row).values()
            )
            for row in index.table.to_pylist()
            if row["reason"] is None
        }


@pytest.mark.parametrize(
    ("order", "wanted", "num_lost"),
    [
        # Sorted by kind: nobody can say.
        ("a.png=1 a.png=2 a.txt=of1 a.txt=of2", {"1": "", "2": ""}, 2),
        ("a.txt=of1 a.txt=of2 a.png=1 a.png=2", {"1": "", "2": ""}, 2),
        ("a.png=1 b.png=b a.png=2 a.txt=of1 b.txt=ofb a.txt=of2", {"1": "", "b": "ofb", "2": ""}, 2),
        ("a.txt=of1 b.txt=ofb a.txt=of2 a.png=1 b.png=b a.png=2", {"1": "", "b": "ofb", "2": ""}, 2),
        ("a.png=1 a.png=2 a.txt=?", {"1": "", "2": ""}, 1),
        ("a.png=1 a.txt=? a.txt=?", {"1": ""}, 2),
        ("a.png=1 a.txt=of1 a.txt=of2 a.png=2", {"1": "", "2": ""}, 2),  # either way round
        ("b.txt=ofb b.png=b a.png=1 a.txt=? a.png=2", {"b": "ofb", "1": "", "2": ""}, 1),
        # Pairs lie side by side.
        ("a.png=1 a.txt=of1 a.png=2 a.txt=of2", {"1": "of1", "2": "of2"}, 0),
        ("a.txt=of1 a.png=1 a.txt=of2 a.png=2", {"1": "of1", "2": "of2"}, 0),
        ("a.png=1 a.txt=of1 a.png=2", {"1": "of1", "2": ""}, 0),
        (
            "a.png=1 a.txt=of1 b.png=b b.txt=ofb a.png=2 b.png=c",
            {"1": "of1", "b": "ofb", "2": "", "c": ""},
            0,
        ),
        ("a.v1.png=1 a.v1.txt=? a.v1.txt=? a.v2.png=2 a.v2.txt=of2", {"1": "", "2": "of2"}, 2),
    ],
)
def test_no_image_has_the_caption_of_another(
    tmp_path: Path, write_tar: Callable[..., Path], order: str, wanted: dict[str, str], num_lost: int
):
    members = [(name, data.encode()) for name, _, data in (m.partition("=") for m in order.split())]
    index = index_of(write_tar(tmp_path / "s.tar", members))
    assert captions(index) == wanted
    assert index.table["reason"].null_count == len(wanted) == len(index.table)
    details = [n.detail for n in index.notes if n.what == "duplicate_name" and "sidecars" in n.detail]
    assert [detail.split(" ")[0] for detail in details] == [str(num_lost)] * bool(num_lost)


def test_names_that_are_written_alike_are_two(tmp_path: Path, write_tar: Callable[..., Path]):
    """The byte E9, and the three letters that stand for it."""
    order = [("%E9.png", b"1"), ("\udce9.png", b"2"), ("%E9.txt", b"of1"), ("\udce9.txt", b"of2")]
    index = index_of(write_tar(tmp_path / "s.tar", order))
    assert captions(index) == {"1": "of1", "2": "of2"}
    assert index.table["key"].to_pylist() == ["s.tar/%E9.png", "s.tar/%E9.png#2"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a.png", "a.txt", "a.b.png", "a.b.txt", "b.png", "b.json"]), max_size=9))
def test_nothing_is_lost_or_doubled(names: list[str]):
    rule = SidecarRule(("txt", "json"), 100)
    files = [StoredFile(name, "s.tar", offset, 1) for offset, name in enumerate(names)]
    found = group_samples(files, rule)
    members = [file for sample in found.files for file in sample] + found.left_out
    assert sorted(members, key=lambda file: file.offset) == files
    assert all(rule.admits(file.name, 1) for file in found.left_out)
    if len(set(names)) == len(names):
        assert not found.left_out
