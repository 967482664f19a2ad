"""The walk through a source's folder: links, rings, hidden and closed entries, all told."""

import os
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.hidden import is_hidden
from curation.ingest import walk
from curation.ingest.folder import folder_rows
from curation.ingest.imagefolder import folder_version, list_image_folders
from curation.ingest.links import LinkConfig
from curation.ingest.problems import Findings
from curation.ingest.source_files import list_units
from curation.ingest.sources import (
    FolderSource,
    HuggingFaceSource,
    ParquetSource,
    Source,
    TarSource,
    UrlSource,
    WarcSource,
)
from curation.ingest.units import cut_units
from curation.ingest.walk import WalkRules, walk_source


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def walked(
    root: Path, links: LinkConfig | None = None, **rules: Any
) -> tuple[list[str], set[tuple[str, str]]]:
    """The keys, and what was told, paths from `root` on."""
    findings = Findings()
    files = walk_source(str(root), WalkRules(links or LinkConfig(), **rules), findings=findings)
    keys = [file.key for file in files]
    told = [*findings.problems, *findings.notes]
    return keys, {(problem.path.removeprefix(f"{root}/"), problem.what) for problem in told}


def test_an_ordinary_folder_is_listed_as_by_storage(tmp_path: Path):
    write(
        tmp_path,
        "b/z.jpg",
        "b/a/x.jpg",
        "a.jpg",
        "B.jpg",
        "b.jpg",
        "b-1.jpg",
        ".a.jpg",
        "ä.jpg",
        "b/n" + "x" * 253,
    )
    findings = Findings()
    files = list(walk_source(str(tmp_path), WalkRules(LinkConfig()), findings=findings))
    assert files == list(storage.list_files(str(tmp_path)))
    assert findings == Findings()


def test_rings_end_and_each_folder_comes_once(tmp_path: Path):
    root = tmp_path / "in"
    write(root, "m/0.jpg", "m/n/1.jpg")
    write(tmp_path, "out/2.jpg", "out/deep/3.jpg")
    (root / "a").symlink_to(tmp_path / "out/deep")  # the first link to it
    (root / "b").symlink_to(tmp_path / "out")  # holds what a link has led to already
    (root / "c").symlink_to(root / "m")  # lies in the source anyway
    (root / "m/n/up").symlink_to("..")
    (root / "top").symlink_to(tmp_path)  # holds the source
    (tmp_path / "out/back").symlink_to(root)
    keys, told = walked(root)
    assert keys == ["a/3.jpg", "b/2.jpg", "m/0.jpg", "m/n/1.jpg"]
    assert told == {
        ("b/back", "link_ring"), ("b/deep", "link_repeated"), ("c", "link_repeated"), ("m/n/up", "link_ring"),
        ("top", "link_ring"),
    }  # fmt: skip


def test_two_folders_that_link_to_each_other_end(tmp_path: Path):
    write(tmp_path, "in/0.jpg", "x/1.jpg", "y/2.jpg")
    (tmp_path / "in/x").symlink_to(tmp_path / "x")
    (tmp_path / "x/y").symlink_to(tmp_path / "y")
    (tmp_path / "y/x").symlink_to(tmp_path / "x")
    keys, told = walked(tmp_path / "in")
    assert keys == ["0.jpg", "x/1.jpg", "x/y/2.jpg"]
    assert told == {("x/y/x", "link_ring")}


def test_a_link_into_what_is_hidden_is_followed(tmp_path: Path):
    """As git-annex, DVC and volumes of Kubernetes lay files out."""
    write(tmp_path, ".store/v1/0.jpg", ".store/1")
    (tmp_path / "now").symlink_to(".store/v1")
    (tmp_path / "1.jpg").symlink_to(".store/1")
    assert walked(tmp_path) == (["1.jpg", "now/0.jpg"], {(".store", "hidden")})


def test_what_cannot_be_a_file_is_told(tmp_path: Path):
    write(tmp_path, "a.jpg", "f/b.jpg")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone.jpg").symlink_to("none/x.jpg")
    (tmp_path / "f/through").symlink_to(tmp_path / "a.jpg/x")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    keys, told = walked(tmp_path)
    assert keys == ["a.jpg", "f/b.jpg"]
    # Once a folder and kind, with the first of its kind.
    assert told == {
        ("gone.jpg", "dangling_link"),
        ("f/through", "dangling_link"),
        ("null.jpg", "not_regular"),
    }


def test_an_entry_that_fails_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, "a.jpg", "b.jpg", "closed/c.jpg", "d.jpg")
    scandir, lstat = os.scandir, os.lstat

    def scan(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def look(path: Any) -> os.stat_result:
        if str(path).endswith("b.jpg"):
            raise OSError(5, "Input/output error", str(path))
        if str(path).endswith("d.jpg"):
            (tmp_path / "d.jpg").unlink(missing_ok=True)  # between the listing and the look
        return lstat(path)

    monkeypatch.setattr(walk.os, "scandir", scan)
    monkeypatch.setattr(walk.os, "lstat", look)
    keys, told = walked(tmp_path)
    assert keys == ["a.jpg"]
    assert told == {("b.jpg", "unreadable"), ("closed", "unreadable"), ("d.jpg", "vanished")}


def test_a_path_that_is_too_long_costs_itself(tmp_path: Path):
    write(tmp_path, "a.jpg")
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(20):  # folders of 255 bytes: 5,100 in all
            os.mkdir("x" * 255, dir_fd=handle)
            inner = os.open("x" * 255, os.O_RDONLY, dir_fd=handle)
            os.close(handle)
            handle = inner
    finally:
        os.close(handle)
    keys, told = walked(tmp_path)
    assert keys == ["a.jpg"]
    assert {what for _, what in told} == {"unreadable"}


def test_links_stay_within(tmp_path: Path):
    write(
        tmp_path, "lab/in/0.jpg", "lab/disk/1.jpg", "lab/2.jpg", "other/3.jpg", "other/4.jpg", "labour/5.jpg"
    )
    for name, target in (
        ("disk", "lab/disk"),
        ("2.jpg", "lab/2.jpg"),
        ("other", "other"),
        ("labour", "labour"),
    ):
        (tmp_path / "lab/in" / name).symlink_to(tmp_path / target)
    (tmp_path / "lab/in/4.jpg").symlink_to("../../other/4.jpg")
    inside = ["0.jpg", "2.jpg", "disk/1.jpg"]
    assert walked(tmp_path / "lab/in", LinkConfig(within=str(tmp_path / "lab"))) == (
        inside, {("4.jpg", "link_outside")},
    )  # fmt: skip
    assert walked(tmp_path / "lab/in", LinkConfig(within=str(tmp_path / "lab/in")))[0] == ["0.jpg"]
    assert len(walked(tmp_path / "lab/in")[0]) == 7  # a link to a file is a file
    for source in sources_in(tmp_path / "lab/in", LinkConfig(within=str(tmp_path / "other"))):
        with pytest.raises(ConfigError, match="links may not leave"):
            list(list_units(source))


def sources_in(path: Path, links: LinkConfig) -> list[Source]:
    kinds = (FolderSource, TarSource, ParquetSource, HuggingFaceSource, WarcSource, UrlSource)
    return [kind(path=str(path), links=links) for kind in kinds]


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [(TarSource, "tar"), (ParquetSource, "parquet"), (WarcSource, "warc.gz"), (UrlSource, "txt")],
)
def test_every_kind_of_file_is_found_behind_links(kind: Any, suffix: str, tmp_path: Path):
    write(tmp_path, f"in/a.{suffix}", f"in/real/b.{suffix}", f"in/._a.{suffix}", f"out/c.{suffix}")
    (tmp_path / "in/disk").symlink_to(tmp_path / "out")
    (tmp_path / "in/again").symlink_to("real")
    (tmp_path / f"in/none.{suffix}").symlink_to("/nonexistent/x")
    findings = Findings()
    keys = [file.key for file in list_units(kind(path=f"{tmp_path}/in"), findings)]
    assert keys == [f"a.{suffix}", f"disk/c.{suffix}", f"real/b.{suffix}"]
    assert [p.what for p in findings.problems] == ["dangling_link"]
    assert {p.what for p in findings.notes} == {"hidden", "link_repeated"}
    pattern = [file.key for file in list_units(kind(path=f"{tmp_path}/in/*/*.{suffix}"))]
    assert pattern == [f"disk/c.{suffix}", f"real/b.{suffix}"]
    # A name that is asked for is no hidden one.
    assert [file.key for file in list_units(kind(path=f"{tmp_path}/in/._*.{suffix}"))] == [f"._a.{suffix}"]


def test_a_file_whose_name_no_table_can_have_is_unread(tmp_path: Path):
    write(tmp_path, "a.tar")
    (tmp_path / "a.tar").rename(tmp_path / os.fsdecode(b"\xe9.tar"))
    write(tmp_path, "b.tar")
    findings = Findings()
    assert [unit.file.key for unit in cut_units(TarSource(path=str(tmp_path)), findings)] == ["b.tar"]
    assert [(p.path, p.what) for p in findings.problems] == [(f"{tmp_path}/%E9.tar", "name_not_utf8")]


def test_a_caption_with_an_odd_name_is_left_out(tmp_path: Path):
    write(tmp_path, "a.jpg", "a.txt", "a.x.txt")
    (tmp_path / "a.x.txt").rename(tmp_path / os.fsdecode(b"a.\xe9.txt"))
    findings = Findings()
    [table] = folder_rows(FolderSource(path=str(tmp_path)), 10, findings)
    assert [[s["name"] for s in row["sidecars"]] for row in table.to_pylist()] == [["txt"]]
    assert [(p.path, p.what) for p in findings.notes] == [(f"{tmp_path}/a.%E9.txt", "odd_name")]


def test_a_sidecar_brings_nobody_elses_file_in(tmp_path: Path):
    write(
        tmp_path,
        "secret.txt",
        "in/a.jpg",
        "in/b.jpg",
        "in/b.json",
        "in/b.x/e.jpg",
        "in/b.x/e.txt",
        "other.jpg",
    )
    write(tmp_path, *(f"disk/{name}" for name in ("c.jpg", "c.json", "c.txt", "deep/f.jpg", "deep/f.txt")))
    (tmp_path / "in/a.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "in/b.txt").symlink_to("b.json")  # its own
    (tmp_path / "in/disk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/deep/f.json").symlink_to(tmp_path / "disk/c.json")  # its own, and not the source's
    (tmp_path / "disk/deep/f.cls").symlink_to(tmp_path / "in/b.json")
    (tmp_path / "in/d.jpg").symlink_to(tmp_path / "other.jpg")  # a picture, and decoded as one

    def sidecars(links: LinkConfig) -> tuple[dict[str, list[str]], list[str]]:
        findings = Findings()
        tables = folder_rows(FolderSource(path=f"{tmp_path}/in", links=links), 10, findings)
        rows = [row for table in tables for row in table.to_pylist()]
        assert {p.what for p in findings.notes} <= {"link_outside"}
        noted = [p.path.removeprefix(f"{tmp_path}/in/") for p in findings.notes]
        return {r["key"]: [s["name"] for s in r["sidecars"]] for r in rows}, noted

    own = {"a.jpg": [], "b.jpg": ["json", "txt"], "b.x/e.jpg": ["txt"], "d.jpg": []}
    # A note for each folder that loses some.
    left_out = ["disk/deep/f.json", "disk/c.json", "a.txt"]
    assert sidecars(LinkConfig()) == ({**own, "disk/c.jpg": [], "disk/deep/f.jpg": ["cls"]}, left_out)
    of_disk = {"disk/c.jpg": ["json", "txt"], "disk/deep/f.jpg": ["cls", "json", "txt"]}
    assert sidecars(LinkConfig(sidecars=True)) == ({**own, "a.jpg": ["txt"], **of_disk}, [])


@pytest.mark.parametrize("way", ["the source's own path", "a file below it"])
def test_a_source_that_is_reached_by_a_link_has_its_sidecars(tmp_path: Path, way: str):
    write(tmp_path, "real/a.jpg", "real/a.txt", "real/b/c.jpg", "real/b/c.txt")
    path = "real"
    if way == "the source's own path":
        (tmp_path / "in").symlink_to(tmp_path / "real")
        path = "in"
    else:
        (tmp_path / "real/a.json").symlink_to("b/c.txt")
    findings = Findings()
    tables = folder_rows(FolderSource(path=f"{tmp_path}/{path}"), 10, findings)
    rows = [row for table in tables for row in table.to_pylist()]
    expected = {"in": [1, 1], "real": [2, 1]}[path]
    assert [len(row["sidecars"]) for row in rows] == expected
    assert findings.notes == []


def test_metadata_of_an_imagefolder_bring_nobody_elses_file_in(tmp_path: Path):
    write(tmp_path, "secret.csv", "in/cat/0.jpg", "disk/1.jpg", "disk/metadata.jsonl")
    (tmp_path / "in/cat/metadata.csv").symlink_to(tmp_path / "secret.csv")
    (tmp_path / "in/dog").symlink_to(tmp_path / "disk")
    (tmp_path / "in/.cache").mkdir()
    write(tmp_path, "in/.cache/2.jpg", "in/__MACOSX/._0.jpg")
    versions = []
    for allowed in (False, True):
        source = HuggingFaceSource(path=f"{tmp_path}/in", links=LinkConfig(sidecars=allowed))
        findings = Findings()
        folders = list_image_folders(source, findings)
        assert [folder.key for folder in folders] == ["cat/", "dog/"]
        assert [p.what for p in findings.notes] == ([] if allowed else ["link_outside"] * 2)
        versions.append([folder.version for folder in folders])
        assert versions[-1] == [folder_version(source, folder) for folder in folders]
    assert all(one != other for one, other in zip(*versions, strict=True))


def test_what_is_hidden():
    hidden = (
        ".ipynb_checkpoints/a.jpg", "x/.git/b", ".Trash-1000/c.jpg", "__MACOSX/d.jpg", "@eaDir/a.jpg/t.jpg",
        ".DS_Store", "x/Thumbs.db", "._a.tar", "x/._a.jpg", "$RECYCLE.BIN/e.jpg", ".nfs0000", ".x/",
    )  # fmt: skip
    shown = (
        "a.jpg",
        ".a.jpg",
        "x/.hidden",
        "./a.jpg",
        "../a.jpg",
        "lost+found/b.jpg",
        "..a.jpg",
        "_a/b",
    )
    assert [key for key in hidden if not is_hidden(key)] == []
    assert [key for key in shown if is_hidden(key)] == []


def test_hidden_keys_of_a_store_are_passed_over():
    root = "memory://hidden-keys"
    for key in ("a.jpg", ".ipynb_checkpoints/a.jpg", "b/.DS_Store", "b/c.jpg"):
        storage.publish_bytes(storage.join(root, key), b"x")
    findings = Findings()
    assert [f.key for f in list_units(FolderSource(path=root), findings)] == ["a.jpg", "b/c.jpg"]
    assert [p.what for p in findings.notes] == ["hidden"]


def test_a_folder_of_nothing_else_says_what_there_is(tmp_path: Path):
    write(tmp_path, "hidden/.git/x", "links/none")
    with pytest.raises(SourceError, match=r"hidden: .*\.git"):
        list(list_units(FolderSource(path=f"{tmp_path}/hidden")))
    (tmp_path / "links/none").unlink()
    (tmp_path / "links/none").symlink_to("nowhere")
    findings = Findings()
    assert list(list_units(FolderSource(path=f"{tmp_path}/links"), findings)) == []
    assert [p.what for p in findings.problems] == ["dangling_link"]


def test_what_the_run_itself_writes_is_no_part_of_a_source(tmp_path: Path):
    root = tmp_path / "in"
    write(root, "a.jpg", "run/dataset-1/b.jpg", "run/run.yaml", "z/c.jpg")
    write(tmp_path, "above/other/d.jpg")
    (root / "link").symlink_to("run/dataset-1")
    (root / "link.jpg").symlink_to("run/dataset-1/b.jpg")
    (tmp_path / "way").symlink_to(root / "run")
    for run_dir in (root / "run", tmp_path / "way"):
        findings = Findings()
        rules = WalkRules(LinkConfig(), run_dir=str(run_dir))
        files = walk_source(str(root), rules, findings=findings)
        assert [file.key for file in files] == ["a.jpg", "z/c.jpg"]
        assert not findings.problems
        assert findings.notes[0].what == "own_output"
        assert findings.notes[0].detail.endswith("and so for link.jpg, run")
    assert walked(root, run_dir=str(tmp_path / "none"))[0][-1] == "z/c.jpg"
    # A link out of the source's folder leads above the run's.
    (tmp_path / "above/run").mkdir()
    write(tmp_path / "above/run", "e.jpg")
    (root / "out").symlink_to(tmp_path / "above")
    keys, told = walked(root, run_dir=f"{tmp_path}/above/run")
    assert "out/other/d.jpg" in keys
    assert "out/run/e.jpg" not in keys
    assert ("out/run", "own_output") in told


def test_a_source_in_a_run_directory_is_listed_and_one_that_is_it_refused(tmp_path: Path):
    write(tmp_path, "in/a.jpg")
    assert walked(tmp_path / "in", run_dir=str(tmp_path)) == (["a.jpg"], set())
    with pytest.raises(ConfigError, match="the run_dir of its own run"):
        walked(tmp_path / "in", run_dir=f"{tmp_path}/in")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (TarSource, "a.tar"),
        (ParquetSource, "a.parquet"),
        (UrlSource, "a.csv"),
        (WarcSource, "a.warc"),
        (HuggingFaceSource, "a.parquet"),
        (HuggingFaceSource, "a.jpg"),
    ],
)
def test_no_kind_of_source_lists_what_its_run_writes(tmp_path: Path, source: Any, name: str):
    write(tmp_path, f"d/{name}", f"run/{name}")
    for path in (tmp_path, tmp_path / f"*/*{name[1:]}")[: 1 if source is HuggingFaceSource else 2]:
        files = list_units(source(path=str(path)), run_dir=f"{tmp_path}/run")
        assert [file.key.split("/")[0] for file in files] == ["d"]
