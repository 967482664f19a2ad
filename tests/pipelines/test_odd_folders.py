"""Folders as they are found: links, closed folders, odd names, hidden files, through whole runs."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.cli import main as cli
from pipelines.config.run_config import RunConfig, validate
from pipelines.run import RunResult
from pipelines.training.evaluate import evaluate

Run = Callable[..., RunResult]
Rows = Callable[[Path, str], pa.Table]


def picture(number: int, *, side_px: int = 96) -> bytes:
    """A small picture like no other."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((side_px, side_px), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def write(folder: Path, *names: str, first: int = 0) -> None:
    """Pictures, each of its own, by name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(first + number))


def config_of(root: Path, *, kind: str = "folder", **source: Any) -> dict[str, Any]:
    """A config over `root/in`, which writes to `root/run`."""
    return {
        "run_dir": str(root / "run"),
        "pools": {"web": {"role": "uncurated", "sources": [{"kind": kind, "path": f"{root}/in", **source}]}},
        "describe": {"embed": {"embedder": "gist"}, "decode_threads": 1},
        "executor": {"kind": "local"},
    }


def checked(data: dict[str, Any]) -> RunConfig:
    return validate(data, where="the test's config")


def keys_of(rows_of: Rows, root: Path, decision: str = "kept") -> list[str]:
    return sorted(
        row["key"] for row in rows_of(root / "run", "lineage").to_pylist() if row["decision"] == decision
    )


def found(root: Path, kind: str) -> set[tuple[str, str]]:
    """What the receipts of ingest say was not read (`unread`) or is odd (`notes`), paths from `root` on."""
    entries: list[dict[str, Any]] = []
    for file in (root / "run/steps/ingest").glob("*/receipt.json"):
        entries += json.loads(file.read_text())["facts"][kind]
    return {(entry["path"].removeprefix(f"{root}/"), entry["what"]) for entry in entries}


def without_rights(root: Path, data: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """`lvd run` by somebody who may not open everything: root may, unless it gives its rights away."""
    (root / "config.json").write_text(json.dumps(data))
    command = [sys.executable, "-m", "pipelines.cli", "run", str(root / "config.json")]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_linked_folders_are_followed_and_a_link_to_nowhere_is_named(
    tmp_path: Path, run_quietly: Run, rows_of: Rows
):
    write(tmp_path / "elsewhere", "0.jpg", "1.jpg", "2.jpg")
    write(tmp_path / "in/real", "0.jpg", "1.jpg", "2.jpg", first=10)
    (tmp_path / "in/disk2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/dangling.jpg").symlink_to("/nonexistent/x.jpg")
    result = run_quietly(checked(config_of(tmp_path)))
    assert keys_of(rows_of, tmp_path) == [
        f"{folder}/{n}.jpg" for folder in ("disk2", "real") for n in range(3)
    ]
    assert result.exit_code == 3
    assert found(tmp_path, "unread") == {("in/dangling.jpg", "dangling_link")}


def test_a_closed_folder_costs_itself(tmp_path: Path, rows_of: Rows):
    write(tmp_path / "in/ok", "0.jpg", "1.jpg", "2.jpg")
    (tmp_path / "in/lost+found").mkdir(mode=0)
    ended = without_rights(tmp_path, config_of(tmp_path))
    assert ended.returncode == 3, ended.stderr
    assert keys_of(rows_of, tmp_path) == ["ok/0.jpg", "ok/1.jpg", "ok/2.jpg"]
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert [(entry["path"], entry["what"]) for entry in manifest["unread"]] == [
        (f"{tmp_path}/in/lost+found", "unreadable")
    ]


def test_hidden_folders_are_no_classes(tmp_path: Path):
    for folder, first in (("train", 0), ("test", 20)):
        write(tmp_path / folder, "cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg", first=first)
    before = evaluate("pixels", train=f"{tmp_path}/train", test=f"{tmp_path}/test", neighbours=(1,))
    write(tmp_path / "train/.ipynb_checkpoints", "0.jpg", "1.jpg", first=20)  # nearer than any of a class
    after = evaluate("pixels", train=f"{tmp_path}/train", test=f"{tmp_path}/test", neighbours=(1,))
    assert [note.what for note in after.notes] == ["hidden"]
    assert replace(after, notes=()) == before


def test_a_name_that_is_not_utf8_says_so(tmp_path: Path, rows_of: Rows, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "in", "0.jpg", "1.jpg", "t.jpg")
    (tmp_path / "in/t.jpg").rename(tmp_path / os.fsdecode(b"in/in\xe9.jpg"))
    (tmp_path / "config.json").write_text(json.dumps(config_of(tmp_path)))
    assert cli.main(["run", str(tmp_path / "config.json")]) == 0
    said = capsys.readouterr()
    assert "--refresh" not in said.out + said.err
    [row] = [row for row in rows_of(tmp_path / "run", "lineage").to_pylist() if row["decision"] == "dropped"]
    assert (row["key"], row["stage"], row["reason"]) == ("in%E9.jpg", "describe", "name_not_utf8")
    for asked in ("in%E9.jpg", os.fsdecode(b"in\xe9.jpg")):
        assert cli.main(["explain", str(tmp_path / "run"), asked]) == 0
        assert "not UTF-8" in capsys.readouterr().out


def test_what_a_system_puts_beside_tars_is_left_alone(tmp_path: Path, run_quietly: Run, rows_of: Rows):
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/good.tar", "w") as tar:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(picture(number))
            tar.addfile(member, io.BytesIO(picture(number)))
    (tmp_path / "in/._good.tar").write_bytes(b"\0\5\x16\7" + bytes(96))
    result = run_quietly(checked(config_of(tmp_path, kind="tars")))
    assert result.exit_code == 0
    assert len(keys_of(rows_of, tmp_path)) == 3
    assert found(tmp_path, "notes") == {("in/._good.tar", "hidden")}


def test_a_file_that_became_shorter_has_changed(tmp_path: Path, run_quietly: Run, rows_of: Rows):
    write(tmp_path / "in", *(f"{number:02d}.jpg" for number in range(6)))
    assert run_quietly(checked(config_of(tmp_path)), until="cluster").exit_code == 0
    (tmp_path / "in/00.jpg").unlink()
    shorter = picture(50, side_px=64)
    assert len(shorter) < (tmp_path / "in/01.jpg").stat().st_size
    (tmp_path / "in/01.jpg").write_bytes(shorter)
    assert run_quietly(checked(config_of(tmp_path))).exit_code == 3
    reasons = {row["key"]: row["reason"] for row in rows_of(tmp_path / "run", "lineage").to_pylist()}
    assert {key for key, reason in reasons.items() if reason == "source_changed"} == {"00.jpg", "01.jpg"}


@pytest.mark.parametrize(("until", "reason"), [("ingest", "unreadable"), ("cluster", "source_changed")])
def test_a_pipe_in_place_of_an_image_stops_nothing(
    tmp_path: Path, run_quietly: Run, rows_of: Rows, until: str, reason: str
):
    write(tmp_path / "in", *(f"{number}.jpg" for number in range(4)))
    (tmp_path / "in/1.txt").write_text("of one")
    (tmp_path / "in/2.txt").write_text("of two")
    assert run_quietly(checked(config_of(tmp_path)), until=until).exit_code == 0
    for name in ("0.jpg", "1.txt"):
        (tmp_path / "in" / name).unlink()
        os.mkfifo(tmp_path / "in" / name)
    (tmp_path / "in/2.txt").write_text("of two, and more")
    result = run_quietly(checked(config_of(tmp_path)))
    assert result.exit_code == 3
    assert keys_of(rows_of, tmp_path) == ["1.jpg", "2.jpg", "3.jpg"]
    rows = {row["key"]: row["reason"] for row in rows_of(tmp_path / "run", "lineage").to_pylist()}
    assert rows["0.jpg"] == reason
    # A caption costs its image nothing, and is told.
    told = {(entry["path"], entry["what"]) for entry in result.manifest["unread"]}
    assert {(f"{tmp_path}/in/1.txt", "changed"), (f"{tmp_path}/in/2.txt", "changed")} <= told


def test_an_image_that_changed_before_it_was_described_has_changed(
    tmp_path: Path, run_quietly: Run, rows_of: Rows
):
    write(tmp_path / "in", "0.jpg", "1.jpg", "2.jpg", "3.jpg")
    assert run_quietly(checked(config_of(tmp_path)), until="ingest").exit_code == 0
    (tmp_path / "in/0.jpg").write_bytes(picture(50, side_px=64))
    (tmp_path / "in/1.jpg").write_bytes(picture(51, side_px=160))  # the first half of it would be `truncated`
    assert run_quietly(checked(config_of(tmp_path))).exit_code == 3
    rows = {row["key"]: row for row in rows_of(tmp_path / "run", "lineage").to_pylist()}
    for key in ("0.jpg", "1.jpg"):
        assert (rows[key]["stage"], rows[key]["reason"]) == ("describe", "source_changed")
    assert run_quietly(checked(config_of(tmp_path)), refresh=True).exit_code == 0


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_a_tar_that_was_written_anew_has_changed(tmp_path: Path, run_quietly: Run, rows_of: Rows, size: int):
    def write_tar(first: int, num: int) -> None:
        with tarfile.open(tmp_path / "in/a.tar", "w") as tar:
            for number in range(first, first + num):
                member = tarfile.TarInfo(f"{number - first}.jpg")
                member.size = len(picture(number))
                tar.addfile(member, io.BytesIO(picture(number)))

    (tmp_path / "in").mkdir()
    write_tar(0, 4)
    assert run_quietly(checked(config_of(tmp_path, kind="tars")), until="cluster").exit_code == 0
    write_tar(10, 4 + size)
    result = run_quietly(checked(config_of(tmp_path, kind="tars")))
    assert {row["reason"] for row in rows_of(tmp_path / "run", "lineage").to_pylist()} == {"source_changed"}
    assert [entry["what"] for entry in result.manifest["unread"]] == ["source_changed"]


def test_a_closed_caption_costs_itself(tmp_path: Path):
    write(tmp_path / "in", "0.jpg", "1.jpg")
    (tmp_path / "in/0.txt").write_text("a caption")
    (tmp_path / "in/0.txt").chmod(0)
    ended = without_rights(tmp_path, config_of(tmp_path))
    assert ended.returncode == 3, ended.stderr
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["counts"]["dataset"] == 2
    assert [(entry["path"], entry["what"]) for entry in manifest["unread"]] == [
        (f"{tmp_path}/in/0.txt", "unreadable")
    ]


def test_classes_behind_links_count_and_what_is_closed_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for folder, first in (("train", 0), ("test", 20)):
        write(tmp_path / folder, "cat/0.jpg", "cat/1.jpg", first=first)
        write(tmp_path / "disk" / folder, "more/2.jpg", "more/3.jpg", first=first + 5)
        (tmp_path / folder / "dog").symlink_to(tmp_path / "disk" / folder)
        (tmp_path / folder / "bird").symlink_to("/nonexistent")
    os.mkfifo(tmp_path / "train/cat/9.jpg")
    arguments = [
        "evaluate",
        "pixels",
        "--train",
        f"{tmp_path}/train",
        "--test",
        f"{tmp_path}/test",
        "--k",
        "1",
    ]
    assert cli.main(arguments) == 3
    said = capsys.readouterr().out
    assert "4 images classified by 4" in said
    assert said.count("dangling_link") == 2


def test_what_an_evaluation_passes_over_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for folder, first in (("train", 0), ("test", 20)):
        write(tmp_path / folder, "a/0.jpg", "b/1.jpg", ".git/2.jpg", "__MACOSX/b/3.jpg", first=first)
    os.mkfifo(tmp_path / "test/b/p.jpg")
    (tmp_path / "test/a/z.jpg").symlink_to("/dev/zero")
    (tmp_path / "test/a/ring").symlink_to(tmp_path / "test")
    with (tmp_path / "test/a/large.jpg").open("wb") as file:
        file.truncate(1 << 40)
    folders = ["--train", f"{tmp_path}/train", "--test", f"{tmp_path}/test", "--k", "1"]
    assert cli.main(["evaluate", "pixels", *folders]) == 0
    said = capsys.readouterr().out
    assert "2 images classified by 2" in said
    assert "1 files cannot be read or decoded" in said  # the large one
    for place, what in (
        ("test/b/p.jpg", "not_regular"),
        ("test/a/z.jpg", "not_regular"),
        ("test/a/ring", "link_ring"),
        ("test/.git", "hidden"),
        ("train/.git", "hidden"),
    ):
        assert f"note: {tmp_path}/{place}: {what}: " in said, (place, what)
    assert "__MACOSX" in said
    assert cli.main(["evaluate", "pixels", *folders, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {note["what"] for note in found["notes"]} == {"not_regular", "link_ring", "hidden"}


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_a_run_in_its_source_never_takes_its_own_output_in(tmp_path: Path, run_quietly: Run, kind: str):
    write(tmp_path / "in", *(f"{number}.jpg" for number in range(4)))
    if kind == "tars":
        for number, tar in enumerate(("x", "y")):
            with tarfile.open(tmp_path / f"in/{tar}.tar", "w") as out:
                for name in (f"{2 * number}.jpg", f"{2 * number + 1}.jpg"):
                    out.add(tmp_path / "in" / name, name)
    data = config_of(tmp_path, kind=kind) | {"run_dir": f"{tmp_path}/in/run"}
    assert run_quietly(checked(data)).exit_code == 0

    def lineage() -> list[dict[str, Any]]:
        manifest = json.loads((tmp_path / "in/run/manifest.json").read_text())
        return pq.read_table(tmp_path / "in/run" / manifest["dataset_dir"] / "lineage").to_pylist()

    first = [row["key"] for row in lineage()]
    assert len(first) == 4
    (tmp_path / ("in/y.tar" if kind == "tars" else "in/3.jpg")).unlink()
    for _ in range(2):
        assert run_quietly(checked(data), refresh=True).exit_code == 0
        kept = [row for row in lineage() if row["decision"] == "kept"]
        assert [row["key"] for row in kept] == first[: 2 if kind == "tars" else 3]
        assert not any("/run/" in row["uri"] for row in lineage())
