"""Every tar of the bad set against its INDEX.tsv."""

import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from curation import storage
from curation.ingest.sources import COMPRESSED_TAR_SUFFIXES, TarSource
from curation.ingest.staging import Place
from curation.ingest.tars.tar_index import index_tar
from curation.ingest.tars.unpack import unpack_tar
from curation.ranges import RangeReader

REPO = Path(__file__).resolve().parents[4]
GOOD = [f"00000{i}.jpg" for i in range(5)]
LONG = "x" * 300 + ".jpg"

# file: rows without a reason, rows with one, problems with their offsets (None: not checked), notes.
EXPECTED: dict[str, tuple[list[str], dict[str, str], dict[str, int | None], list[str]]] = {
    "bad_header_checksum_mid.tar": (GOOD[:2], {}, {"bad_header": 9216}, []),
    "bad_images_mixed.tar": (["a.jpg", "b.jpg", "c.jpg", "d.png", "z0.jpg", "z1.jpg"], {}, {}, []),
    "concat_two.tar": ([*GOOD, "b0.jpg", "b1.jpg", "b2.jpg"], {}, {}, ["concatenated"]),
    "devices.tar": (["z0.jpg", "z1.jpg"], {}, {}, ["not_regular"]),
    "dotted_keys.tar": (
        [".hidden.jpg", "dir.x/img.jpg", "img.v1.final.jpg", "img.v2.final.jpg", "noext"],
        {},
        {},
        [],
    ),
    "dup_keys.tar": (["a.jpg", "a.jpg#2", "b.jpg"], {}, {}, ["duplicate_name"]),
    "dup_member_adjacent.tar": (["a.jpg", "a.jpg#2", "b.jpg"], {}, {}, ["duplicate_name"]),
    "forged_size_8GiB.tar": ([], {"big.jpg": "file_too_large"}, {"truncated": 0}, []),
    "garbage_tail.tar": (GOOD, {}, {}, ["trailing_data"]),
    "gnu_sparse_2GiB.tar": ([], {}, {}, ["not_regular", "empty_archive"]),
    "good.tar": (GOOD, {}, {}, []),
    "good.tar.gz": (GOOD, {}, {}, []),
    "gz_bomb.tar.gz": (["big.jpg"], {}, {"no_end": None}, []),
    "html.tar": ([], {}, {"not_a_tar": 0}, []),
    "image_no_json.tar": (["a.jpg", "b.jpg"], {}, {}, []),
    "json_bad.tar": (["a.jpg", "b.jpg", "z0.jpg", "z1.jpg"], {}, {}, []),
    "json_no_image.tar": (["b.jpg"], {"a.json": "missing_image", "c.json": "missing_image"}, {}, []),
    "latin1_name.tar": (["caf%E9.jpg"], {}, {}, []),
    "long_names.tar": (["d/" * 120 + "y.jpg", LONG], {}, {}, []),
    "many_empty_members_20000.tar.gz": (sorted(f"{i}.jpg" for i in range(20_000)), {}, {}, []),
    "negative_size.tar": ([], {}, {"bad_header": 0}, []),
    "nested.tar": (["a.jpg", "inner.tar"], {}, {}, []),
    "no_eof_blocks.tar": (GOOD, {}, {"no_end": 23040}, []),
    "only_zeros.tar": ([], {}, {}, ["empty_archive"]),
    "pax_size_override.tar": ([], {"a.jpg": "file_too_large"}, {"truncated": None}, []),
    "split_sample.tar": (["a.jpg", "b.jpg"], {}, {}, ["unsorted"]),
    "text.tar": ([], {}, {"not_a_tar": 0}, []),
    "trunc.tar.gz": (GOOD[:2], {"000002.jpg": "truncated"}, {"truncated": 12_315}, []),
    "trunc_in_header.tar": (GOOD[:2], {"000002.jpg": "truncated"}, {"truncated": 9216}, []),
    "trunc_mid_member.tar": (GOOD[:3], {"000003.jpg": "truncated"}, {"truncated": 13824}, []),
    "two_images_one_key.tar": (["a.jpg", "a.png"], {}, {}, []),
    "unicode_names.tar": (
        [
            "-rf.jpg",
            "<script>alert(1)<_script>.jpg",
            "a\nb.jpg",
            "cafe\u0301.jpg",
            "caf\u00e9.jpg",
            "\u202egpj.exe.jpg",
            "\u56fe\u50cf.jpg",
        ],
        {},
        {},
        [],
    ),
    "upper_ext.tar": (["a.JPG", "b.JpEg"], {}, {}, []),
    "zero_bytes.tar": ([], {}, {"empty_file": 0}, []),
    "zip_named.tar": ([], {}, {"not_a_tar": 0}, []),
}

# Where this differs from INDEX.tsv, and why.
EXCEPTIONS = {
    "gz_bomb.tar.gz": "117 MB are below the cap of a member: describe refuses it unread, as file_too_large",
    "many_empty_members_20000.tar.gz": "every member is a row; describe says of each that it is empty",
    "trunc.tar.gz": "beyond what is asked, the torn image has a row with its reason",
    "dotted_keys.tar": "no key collides, so none is reported; a hidden file is a row, as none may be lost",
    "nested.tar": "the inner tar is a row too, which describe refuses (not_an_image): none may be lost",
    "trunc_mid_member.tar": "beyond what is asked, the torn image has a row with its reason",
    "trunc_in_header.tar": "the cut lies in the data of 000002.jpg, not in a header; the row says so",
    "unicode_names.tar": "keys are not normalised: equal bytes are equal names; shards are keyed by image id",
    "two_images_one_key.tar": "two rows, each with the sidecar; nothing about them is ambiguous",
}


def test_every_tar_of_the_set_is_covered(shared_dir: Path):
    names = {path.name for path in (shared_dir / "badset" / "tar").iterdir()}
    lines = (shared_dir / "badset" / "INDEX.tsv").read_text().splitlines()
    assert names == set(EXPECTED) == {line.split("\t")[0][4:] for line in lines if line.startswith("tar/")}
    assert set(EXCEPTIONS) <= names


@pytest.fixture(scope="module", autouse=True)
def _warm(shared_dir: Path) -> None:
    """Imports that happen at the first call count for no file."""
    path = str(shared_dir / "badset" / "tar" / "good.tar")
    index_tar(storage.stat(path), TarSource(path=path))


# Checking the types of every call takes a minute for 20,000 members; these go through a process of their own.
MANY = "many_empty_members_20000.tar.gz"


@pytest.mark.parametrize("name", sorted(EXPECTED.keys() - {MANY}))
def test_a_bad_tar(shared_dir: Path, name: str, tmp_path: Path):
    path = shared_dir / "badset" / "tar" / name
    kept, rejected, problems, notes = EXPECTED[name]
    tracemalloc.start()
    start = time.process_time()
    info, source = storage.stat(str(path)), TarSource(path=str(path))
    is_packed = name.endswith(COMPRESSED_TAR_SUFFIXES)
    index = unpack_tar(info, source, Place(tmp_path, "f")) if is_packed else index_tar(info, source)
    elapsed_s, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rows = index.table.to_pylist()
    keys = [row["key"] for row in rows]
    assert all(key.startswith(f"{name}/") for key in keys)
    assert len(set(keys)) == len(keys)
    names = {key.removeprefix(f"{name}/"): row for key, row in zip(keys, rows, strict=True)}
    assert [key for key, row in names.items() if row["reason"] is None] == kept
    assert {key: row["reason"] for key, row in names.items() if row["reason"]} == rejected
    assert {
        p.what: p.offset if problems.get(p.what, 0) is not None else None for p in index.problems
    } == problems
    assert [n.what for n in index.notes] == notes
    assert all(p.path == str(path) and p.detail for p in index.problems + index.notes)
    for row in rows:
        if row["reason"] is None:
            plain = tmp_path / "000000.tar" if is_packed else path
            assert row["offset"] + row["num_bytes"] <= plain.stat().st_size
    assert elapsed_s < 10
    assert peak < 64 << 20


def test_many_members_take_no_time(shared_dir: Path, tmp_path: Path):
    path = shared_dir / "badset" / "tar" / MANY
    lines = subprocess.run(
        [sys.executable, "-c", UNPACK, str(path), str(tmp_path)], cwd=REPO, check=True, capture_output=True
    ).stdout.splitlines()
    assert [line.decode().removeprefix(f"{MANY}/") for line in lines[1:]] == EXPECTED[MANY][0]
    assert float(lines[0]) < 10


UNPACK = """
import sys, time
from pathlib import Path
from curation import storage
from curation.ingest.sources import TarSource
from curation.ingest.staging import Place
from curation.ingest.tars.unpack import unpack_tar

path, out = sys.argv[1:]
start = time.process_time()
found = unpack_tar(storage.stat(path), TarSource(path=path), Place(Path(out), "f"))
print(time.process_time() - start)
assert not found.problems and set(found.table["reason"].to_pylist()) == {None}
print("\\n".join(found.table["key"].to_pylist()))
"""


def test_sidecars_of_bad_tars_travel_as_bytes(shared_dir: Path):
    carried = {}
    for name in ("json_bad.tar", "split_sample.tar", "two_images_one_key.tar", "dup_keys.tar"):
        path = str(shared_dir / "badset" / "tar" / name)
        table = index_tar(storage.stat(path), TarSource(path=path)).table
        with RangeReader() as reader:
            for row in table.to_pylist():
                for sidecar in row["sidecars"]:
                    carried[f"{row['key']}.{sidecar['name']}"] = reader.read(
                        sidecar["path"], sidecar["offset"], sidecar["num_bytes"]
                    )
    assert set(carried) == {
        "json_bad.tar/a.jpg.json",
        "json_bad.tar/b.jpg.json",
        "split_sample.tar/a.jpg.json",
        "split_sample.tar/b.jpg.json",
        "two_images_one_key.tar/a.jpg.json",
        "two_images_one_key.tar/a.png.json",
        "dup_keys.tar/a.jpg.json",
        "dup_keys.tar/a.jpg#2.json",
    }
    assert carried["json_bad.tar/b.jpg.json"] == b"\xff\xfe"
