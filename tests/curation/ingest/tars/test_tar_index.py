"""Tars as rows, against tarfile and webdataset."""

import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peak_memory import risen_mb
from webdataset.tariterators import group_by_keys, tar_file_expander

from curation import storage
from curation.ingest.rows import FoundRows, read_sample, read_sidecars
from curation.ingest.sidecars import stem
from curation.ingest.sources import TarSource
from curation.ingest.tars.tar_format import Member, TarWalk
from curation.ingest.tars.tar_index import index_tar
from curation.ranges import RangeReader
from curation.tar_headers import BLOCK_BYTES


def index_of(path: Path, **options: object) -> FoundRows:
    return index_tar(storage.stat(str(path)), TarSource(path=str(path), **options))


def walk_of(data: bytes) -> TarWalk:
    return TarWalk("x.tar", len(data)).run(lambda offset, num_bytes: data[offset : offset + num_bytes])


def tar_of(members: list[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """The bytes of a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind, errors="surrogateescape") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_rows_of_a_hand_made_tar(tmp_path: Path, write_tar: Callable[..., Path]):
    path = write_tar(
        tmp_path / "s.tar",
        [
            ("b.jpg", b"B"),
            ("b.txt", b"caption"),
            ("a.v1.jpg", b"A1"),
            ("a.v2.jpg", b"A2"),
            ("a.v2.x.json", b"{"),
        ],
    )
    index = index_of(path, key_prefix="web/")
    assert (index.problems, index.notes) == ([], [])
    version = storage.stat(str(path)).version
    assert index.table.to_pylist() == [
        {
            "key": f"web/s.tar/{name}",
            "uri": f"{path}#{name}",
            "path": str(path),
            "offset": offset,
            "num_bytes": size,
            "version": version,
            "sidecars": [{"name": n, "path": str(path), "offset": o, "num_bytes": s} for n, o, s in sidecars],
            "reason": None,
        }
        for name, offset, size, sidecars in [
            ("a.v1.jpg", 2560, 2, []),
            ("a.v2.jpg", 3584, 2, [("x.json", 4608, 1)]),
            ("b.jpg", 512, 1, [("txt", 1536, 7)]),
        ]
    ]


def test_names_that_come_again_stay_apart(tmp_path: Path, write_tar: Callable[..., Path]):
    path = write_tar(
        tmp_path / "s.tar",
        [
            ("a.jpg", b"1"),
            ("a.txt", b"1"),
            ("a.jpg#2", b"2"),
            ("a.jpg", b"3"),
            ("a.txt", b"3"),
            ("a.jpg", b"4"),
        ],
    )
    index = index_of(path)
    with RangeReader() as reader:
        found = {
            row["key"]: (read_sample(reader, row), read_sidecars(reader, row))
            for row in index.table.to_pylist()
        }
    assert found == {
        "s.tar/a.jpg": (b"1", {"txt": b"1"}),
        "s.tar/a.jpg#2": (b"2", {"txt": b"1"}),  # a name of its own, beside the text of its stem
        "s.tar/a.jpg#3": (b"3", {"txt": b"3"}),
        "s.tar/a.jpg#4": (b"4", {}),
    }
    assert [n.what for n in index.notes] == ["duplicate_name"]


def test_sidecars_find_their_image_in_an_unsorted_tar(tmp_path: Path, write_tar: Callable[..., Path]):
    path = write_tar(
        tmp_path / "s.tar", {n: n.encode() for n in ("a.json", "b.json", "a.jpg", "c.txt", "b.jpg")}
    )
    index = index_of(path)
    assert [(r["key"], [s["name"] for s in r["sidecars"]], r["reason"]) for r in index.table.to_pylist()] == [
        ("s.tar/a.jpg", ["json"], None),
        ("s.tar/b.jpg", ["json"], None),
        ("s.tar/c.txt", ["txt"], "missing_image"),
    ]
    assert [(n.what, n.detail[:36]) for n in index.notes] == [
        ("unsorted", "the members of 2 samples are not adj")
    ]


def test_sizes_over_the_caps(tmp_path: Path, write_tar: Callable[..., Path]):
    path = write_tar(tmp_path / "s.tar", {"a.jpg": bytes(10), "b.jpg": bytes(11), "b.txt": bytes(6)})
    index = index_of(path, max_member_bytes=10, max_sidecar_bytes=5)
    assert [(r["key"], r["reason"], r["sidecars"]) for r in index.table.to_pylist()] == [
        ("s.tar/a.jpg", None, []),
        ("s.tar/b.jpg", "file_too_large", []),
        ("s.tar/b.txt", None, []),  # no sidecar at this size: describe will refuse it by its content
    ]


def test_a_lone_pax_default_is_taken(tmp_path: Path):
    with tarfile.open(tmp_path / "s.tar", "w", pax_headers={"comment": "ü"}) as tar:
        member = tarfile.TarInfo("ü.jpg")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    assert index_of(tmp_path / "s.tar").table["key"].to_pylist() == ["s.tar/ü.jpg"]


def test_what_is_not_regular_is_counted(tmp_path: Path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jpg").write_bytes(b"a")
    (tmp_path / "d" / "c.jpg").symlink_to("a.jpg")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "d", "d")
        tar.addfile(link("stray.jpg", "d/nowhere.jpg"))
        tar.addfile(link("itself.jpg", "itself.jpg"))
    index = index_of(tmp_path / "s.tar")
    assert len(index.table) == 1
    assert [n.detail for n in index.notes] == ["left out: 2 stray hard links, 1 symbolic link"]


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.LNKTYPE, target
    return member


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_hard_link_is_the_member_that_it_names(tmp_path: Path, kind: int):
    folder = "a folder/" if kind == tarfile.USTAR_FORMAT else "ä" * 120 + "/"
    members = {"b.jpg": b"picture b", f"{folder}c.jpg": b"picture c", "b.txt": b"caption"}
    with tarfile.open(tmp_path / "s.tar", "w", format=kind) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        # of a member; of one with a long name; of a link; of a sidecar
        for name, target in (
            ("d.jpg", "./b.jpg"),
            ("e.jpg", f"./{folder}c.jpg"),
            ("f.jpg", "d.jpg"),
            ("f.txt", "b.txt"),
        ):
            tar.addfile(link(name, target))
    index = index_of(tmp_path / "s.tar")
    assert [(n.what) for n in index.notes] == ["unsorted"]  # b.txt does not follow b.jpg
    rows = {row["key"].rsplit("/", 1)[-1]: row for row in index.table.to_pylist()}
    with RangeReader() as reader:
        bytes_of = {key: read_sample(reader, row) for key, row in rows.items()}
        captions = {key: read_sidecars(reader, row) for key, row in rows.items()}
    b, c = b"picture b", b"picture c"
    assert bytes_of == {"b.jpg": b, "c.jpg": c, "d.jpg": b, "e.jpg": c, "f.jpg": b}
    assert captions == {
        "b.jpg": {"txt": b"caption"}, "c.jpg": {}, "d.jpg": {}, "e.jpg": {}, "f.jpg": {"txt": b"caption"},
    }  # fmt: skip


def test_a_tar_that_vanished_or_shrank_is_a_problem(tmp_path: Path, write_tar: Callable[..., Path]):
    path = write_tar(tmp_path / "s.tar", {"a.jpg": b"a", "b.jpg": bytes(2000)})
    info = storage.stat(str(path))
    path.write_bytes(path.read_bytes()[:1024])
    index = index_tar(info, TarSource(path=str(path)))
    assert [p.what for p in index.problems] == ["unreadable"]
    assert index.table["key"].to_pylist() == ["s.tar/a.jpg"]
    path.unlink()
    index = index_tar(info, TarSource(path=str(path)))
    assert ([p.what for p in index.problems], len(index.table)) == (["unreadable"], 0)


def test_webdataset_reads_the_same_samples(tmp_path: Path, write_tar: Callable[..., Path]):
    members = {f"d/{i:03}.{ext}": f"{i}{ext}".encode() for i in range(6) for ext in ("jpg", "txt", "json")}
    path = write_tar(tmp_path / "s.tar", members)
    with path.open("rb") as stream:
        members = tar_file_expander([{"url": str(path), "stream": stream}])
        samples = [{k: v for k, v in s.items() if not k.startswith("__")} for s in group_by_keys(members)]
    with RangeReader() as reader:
        ours = [
            {"jpg": read_sample(reader, row), **read_sidecars(reader, row)}
            for row in index_of(path).table.to_pylist()
        ]
    assert len(ours) == 6
    assert ours == samples


NAMES = st.text("aé\udce9/.", min_size=1, max_size=120).filter(lambda n: n.strip("/") == n and "//" not in n)
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=1100)), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(members=MEMBERS, kind=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_the_walk_is_tarfiles(members: list[tuple[str, bytes]], kind: int):
    try:
        data = tar_of(members, kind)
    except ValueError:  # a name that ustar cannot hold
        return
    walk = walk_of(data)
    assert (walk.problems, walk.notes) == ([], [])
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        assert walk.members == [Member(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
    assert [data[m.offset : m.offset + m.num_bytes] for m in walk.members] == [
        content for _, content in members
    ]


@settings(max_examples=150, deadline=None)
@given(
    members=MEMBERS,
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=3),
)
def test_damage_never_passes_in_silence(
    members: list[tuple[str, bytes]], cut: float, flips: list[tuple[float, int]]
):
    whole = tar_of(members)
    damaged = bytearray(whole[: int(len(whole) * cut)])
    for place, value in flips if damaged else []:
        damaged[int(place * (len(damaged) - 1))] ^= value
    walk = walk_of(bytes(damaged))
    assert all(0 <= p.offset <= len(damaged) for p in walk.problems)
    end = walk_of(whole).members[-1]
    if not flips and len(damaged) <= -(-(end.offset + end.num_bytes) // BLOCK_BYTES) * BLOCK_BYTES:
        assert [p.what for p in walk.problems if p.what in ("truncated", "no_end", "empty_file", "not_a_tar")]


@pytest.mark.parametrize(("lone", "notes"), [(0, []), (1, []), (5, ["concatenated"])])
def test_archives_one_after_the_other(lone: int, notes: list[str]):
    first, second = tar_of([("a.jpg", b"a")])[: 2 * BLOCK_BYTES], tar_of([("b.jpg", b"b")])
    walk = walk_of(first + bytes(lone * BLOCK_BYTES) + second)
    assert [m.name for m in walk.members] == ["a.jpg", "b.jpg"]
    assert ([n.what for n in walk.notes], walk.problems) == (notes or (["concatenated"] if lone else []), [])


PICTURES = [(f"{i}.jpg", bytes([i + 1]) * 30_000) for i in range(10)]
MEMBER = 30_208 + BLOCK_BYTES  # of them, each


@pytest.mark.parametrize("blocks", [1, 2, 8, 10, 20, 40, 64, 100, 126, 128, 200, 256, 512, 1024, 2048])
def test_padding_to_a_record_is_no_loss(blocks: int):
    """Of one archive, of an empty one, and of two, the first padded."""
    for members in (PICTURES, []):
        end = len(members) * MEMBER + 2 * BLOCK_BYTES
        record = blocks * BLOCK_BYTES
        data = tar_of(members)[: end - 2 * BLOCK_BYTES].ljust(-(-end // record) * record, b"\0")
        walk = walk_of(data)
        assert ([m.name for m in walk.members], walk.problems) == ([n for n, _ in members], [])
        walk = walk_of(data + tar_of(PICTURES))
        assert (len(walk.members), walk.problems) == (len(members) + 10, [])
        assert [n.what for n in walk.notes] == ["concatenated"]


@pytest.mark.parametrize(
    ("zeros", "names", "offset", "num_zeros"),
    [
        ((3 * MEMBER, None), "012", 3 * MEMBER, 10 * MEMBER - 3 * MEMBER + 10_240 - 10 * MEMBER % 10_240),
        ((2 * MEMBER + 5000, None), "012", 3 * MEMBER, 7 * MEMBER + 10_240 - 10 * MEMBER % 10_240),
        ((3 * MEMBER, 7 * MEMBER), "012789", 3 * MEMBER, 4 * MEMBER),
        ((0, None), "", 0, 10 * MEMBER + 10_240 - 10 * MEMBER % 10_240),
        ((0, 7 * MEMBER), "789", 0, 7 * MEMBER),
        # The zeros end within a member: what follows is no header.
        ((3 * MEMBER, 6 * MEMBER + 5120), "012", 3 * MEMBER, 3 * MEMBER + 5120),
        ((0, 131_072), "", 0, 131_072),  # a piece of a download, of a size that a record might have
        ((30 * 1024, 32 * 1024), "0", MEMBER, 2048),  # a page of memory
    ],
)
@pytest.mark.parametrize("is_sparse", [False, True])
def test_zeros_where_members_should_be_are_told(
    tmp_path: Path, zeros: tuple[int, int | None], names: str, offset: int, *, num_zeros: int, is_sparse: bool
):
    data = tar_of(PICTURES)
    start, stop = zeros[0], zeros[1] or len(data)
    path = tmp_path / "s.tar"
    with path.open("wb") as out:
        out.write(data[:start])
        if is_sparse:
            out.seek(stop)
        else:
            out.write(bytes(stop - start))
        out.write(data[stop:])
        out.truncate(len(data))
    index = index_of(path)
    assert index.table["key"].to_pylist() == [f"s.tar/{name}.jpg" for name in names]
    [problem] = index.problems
    assert (problem.what, problem.offset, index.notes) == ("zeros", offset, [])
    assert problem.detail.startswith(f"{num_zeros} bytes of zeros")


def test_a_hole_costs_no_reading(tmp_path: Path):
    """A download that was given its full length at once: 50 GB of which nobody wrote more than the start."""
    path = tmp_path / "s.tar"
    with path.open("wb") as out:
        out.write(tar_of(PICTURES)[: 5 * MEMBER])
        out.truncate(50 << 30)
    started = time.process_time()
    index = index_of(path)
    assert time.process_time() - started < 1
    assert (len(index.table), [(p.what, p.offset) for p in index.problems]) == (5, [("zeros", 5 * MEMBER)])
    assert f"{(50 << 30) - 5 * MEMBER} bytes of zeros up to the end of the file" in index.problems[0].detail


def test_a_hidden_files_dot_is_no_extension():
    assert [stem(n) for n in ("a.b.jpg", ".hidden", "d.x/.hidden.jpg", "d.x/noext")] == [
        "a.b",
        ".hidden",
        "d.x/.hidden",
        "d.x/noext",
    ]


def test_hidden_members_are_passed_over(tmp_path: Path):
    names = ("./a.jpg", "._a.jpg", "__MACOSX/._a.jpg", ".ipynb_checkpoints/a.jpg", ".b.jpg", "c/Thumbs.db")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    index = index_of(tmp_path / "s.tar")
    assert index.table["key"].to_pylist() == ["s.tar/./a.jpg", "s.tar/.b.jpg"]
    [note] = index.notes
    assert (note.what, note.detail) == ("hidden", "4 members are passed over, the first ._a.jpg")


def test_pax_globals_are_not_gone_through_for_every_member(tmp_path: Path):
    """A header of a megabyte and 5,000 members: seconds, and not the product of the two."""
    records = {f"x{i}": "y" * 4 for i in range(60_000)}
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=records) as tar:
        for i in range(5_000):
            member = tarfile.TarInfo(f"{i:05d}.jpg")
            tar.addfile(member)
    started = time.process_time()
    index = index_tar(storage.stat(str(path)), TarSource(path=str(path)))
    assert time.process_time() - started < 10
    assert (index.table.num_rows, index.problems) == (5_000, [])


def test_a_long_name_of_all_members_is_none(tmp_path: Path):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"path": "n" * 100_000}) as tar:
        for i in range(3):
            tar.addfile(tarfile.TarInfo(f"{i}.jpg"))
    index = index_tar(storage.stat(str(path)), TarSource(path=str(path)))
    assert index.table["key"].to_pylist() == [f"s.tar/{i}.jpg" for i in range(3)]


def test_the_sidecars_of_one_image_have_a_limit_together(tmp_path: Path, write_tar: Callable[..., Path]):
    """In order of their names, each that still fits; the rest is a note."""
    members = [("a.jpg", b"A"), ("a.9.txt", b"1234"), *((f"a.{i}.txt", b"12345") for i in range(4, -1, -1))]
    index = index_of(write_tar(tmp_path / "s.tar", members), max_sidecar_bytes=6)
    [row] = index.table.to_pylist()
    assert [s["name"] for s in row["sidecars"]] == ["9.txt", "3.txt", "2.txt", "1.txt", "0.txt"]
    [note] = index.notes
    assert (note.what, "1 sidecars are left out, the first 'a.4.txt'" in note.detail) == (
        "long_sidecar",
        True,
    )

    # Sidecars that two images share are counted twice; those without an image have the same limit.
    members.insert(1, ("a.png", b"B"))
    index = index_of(write_tar(tmp_path / "t.tar", members), max_sidecar_bytes=6)
    assert [[s["name"] for s in r["sidecars"]] for r in index.table.to_pylist()] == [["1.txt", "0.txt"]] * 2
    index = index_of(write_tar(tmp_path / "u.tar", members[2:]), max_sidecar_bytes=6)
    assert [(r["reason"], len(r["sidecars"])) for r in index.table.to_pylist()] == [("missing_image", 5)]
    assert [note.what for note in index.notes] == ["long_sidecar"]


def test_many_images_with_the_sidecars_of_one_stem_take_little_memory(tmp_path: Path):
    """4,000 members would make four million sidecars."""
    for name, num in (("small", 1), ("bomb", 2000)):
        members = [(f"a.{i}x", b"") for i in range(num)] + [(f"a.{i}.txt", b"") for i in range(num)]
        (tmp_path / f"{name}.tar").write_bytes(tar_of(members, tarfile.USTAR_FORMAT))
    setup = """
        from curation import storage
        from curation.ingest.sources import TarSource
        from curation.ingest.tars.tar_index import index_tar
    """
    work = """
        index_tar(storage.stat(path), TarSource(path=path))
    """
    assert risen_mb(setup, work, harmless=tmp_path / "small.tar", tried=tmp_path / "bomb.tar") < 60


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_held_by_a_digest(tmp_path: Path, kind: int):
    """Sidecars find their images as before, and a name that may be long is kept."""
    long, other = "x" * 1_000_000, "y" * 1100 + "." + "z" * 100
    members = [(f"{long}.jpg", b"A"), (f"{long}.txt", b"1"), (other, b"B"), ("w" * 1020 + ".jpg", b"C")]
    (tmp_path / "a.tar").write_bytes(tar_of(members, kind))
    index = index_of(tmp_path / "a.tar")
    rows = {row["key"].removeprefix("a.tar/"): row for row in index.table.to_pylist()}
    assert [len(name) for name in sorted(rows, key=len)] == [32, 36, 1024]
    [pair] = [row for row in rows.values() if row["key"].endswith(".jpg") and len(row["key"]) < 100]
    assert [s["name"] for s in pair["sidecars"]] == ["txt"]
    [note] = index.notes
    assert (note.what, note.detail.partition(" ")[0]) == ("long_key", "3")

    small = tmp_path / "small.tar"
    small.write_bytes(tar_of([("a.jpg", b"")]))
    bomb = tmp_path / "bomb.tar"
    bomb.write_bytes(tar_of([(f"{i}{long}", b"") for i in range(50)], kind))
    setup = """
        from curation import storage
        from curation.ingest.sources import TarSource
        from curation.ingest.tars.tar_index import index_tar
    """
    work = "index_tar(storage.stat(path), TarSource(path=path))"
    assert risen_mb(setup, work, harmless=small, tried=bomb) < 20
