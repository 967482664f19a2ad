"""Run directories as they are found: with other people's files, odd manifests, and pipes where files were."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.errors import ConfigError, IntegrityError
from pipelines.answers.verify import verify
from pipelines.cli.main import main
from pipelines.config.run_dir import read_manifest
from pipelines.engine.lock import lock, owner

# What a folder may hold before somebody makes it a run directory.
THEIRS = (
    "tmp/thesis/chapter1.tex", "tmp/note.txt", "tmp/in-flight-plan.txt", "dataset-mine/cat.jpg",
    "dataset-0123/cat.jpg", "steps/dance/waltz.txt", "steps/notes.txt", "steps/dance/markers.txt",
    "logs/captain.txt", "configs/mine.yaml", ".notes.tmp", "README.md",
)  # fmt: skip


def test_nobody_elses_files_are_removed(tmp_path: Path, configure: Any, run_quietly: Any) -> None:
    for name in THEIRS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for _ in range(2):
        assert run_quietly(configure(tmp_path)).exit_code == 0
    assert run_quietly(configure(tmp_path, "judge.min_side_px=2")).exit_code == 0
    assert main(["clean", str(tmp_path), "--keep-current", "--yes"]) == 0
    assert main(["clean", str(tmp_path), "--yes"]) == 0
    assert [name for name in THEIRS if not (tmp_path / name).is_file()] == []
    assert verify(str(tmp_path)) == []


def test_a_manifest_is_read_as_it_was_written_or_not_at_all(damageable: Path) -> None:
    path = damageable / "manifest.json"
    text, wanted = path.read_bytes(), read_manifest(str(damageable))
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(text), 300):
        spoiled = bytearray(text)
        spoiled[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoiled)
        try:
            # A bit of the white space, or of the seal's own name, changes nothing.
            assert read_manifest(str(damageable)).items() >= wanted.items()
        except IntegrityError:
            continue


ODD = (
    "null", "[]", "{}", "5", '"x"', "[" * 100_000, '{"counts": {}}', '{"schema": 2}', "", "\0", "\xff",
)  # fmt: skip


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text)[:20])
def test_what_is_no_manifest_ends_every_answer_in_words(
    damageable: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (damageable / "manifest.json").write_bytes(text.encode("latin-1"))
    run_dir = str(damageable)
    for command in (
        ["status", run_dir], ["report", run_dir], ["verify", run_dir], ["clean", run_dir, "--yes"],
        ["explain", run_dir, "trusted/x"], ["search", run_dir, "--id", "0" * 32],
    ):  # fmt: skip
        assert main(command) == 1, command
        assert "manifest.json is no manifest" in capsys.readouterr().err, command
    assert list(damageable.glob("dataset-*/*.tar"))


@pytest.mark.parametrize("entry", ["shards", "lineage", "counts", "dataset_dir"])
def test_a_manifest_without_a_part_is_named(damageable: Path, entry: str) -> None:
    path = damageable / "manifest.json"
    for value in (None, 3):
        path.write_text(json.dumps(read_whole(path) | {entry: value}))
        with pytest.raises(IntegrityError, match=rf"manifest\.json is no manifest.*{entry}"):
            read_manifest(str(damageable))
        path.write_bytes(b"{}" if value else path.read_bytes())


def read_whole(path: Path) -> dict[str, Any]:
    """The manifest as somebody writes it by hand: without a seal."""
    data = json.loads(path.read_text())
    data.pop("sealed_by", None)
    return data


def test_a_manifest_of_another_schema_is_refused(damageable: Path) -> None:
    path = damageable / "manifest.json"
    path.write_text(json.dumps(read_whole(path) | {"schema": 2}))
    with pytest.raises(IntegrityError, match="schema 2"):
        read_manifest(str(damageable))


def test_a_dataset_that_is_gone_takes_no_other_with_it(
    damageable: Path, configure: Any, run_quietly: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the one that is named would be old ones."""
    run_quietly(configure(damageable, "judge.min_side_px=2"))
    folder = damageable / read_manifest(str(damageable))["dataset_dir"]
    others = set(damageable.glob("dataset-*")) - {folder}
    shutil.rmtree(folder)
    for options in ([], ["--keep-current"]):
        assert main(["clean", str(damageable), "--yes", *options]) == 1
        assert folder.name in capsys.readouterr().err
    assert others
    assert all(other.is_dir() for other in others)


def as_pipe(path: Path) -> None:
    """A pipe that nobody writes to, in the place of a file."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def test_a_lock_that_is_a_pipe_is_named(damageable: Path) -> None:
    as_pipe(damageable / "lock")
    assert owner(str(damageable)) is None
    assert main(["status", str(damageable)]) == 0
    with pytest.raises(ConfigError, match=r"no regular file: .*lock.*Remove it"), lock(str(damageable)):
        raise AssertionError("it was taken")


@pytest.mark.parametrize(
    "pattern",
    [
        "steps/hashes/markers/*", "steps/describe/*/described.parquet", "dataset-*/*.tar",
         "dataset-*/lineage/*", "dataset-*/index/*",
        "manifest.json",
    ],
)  # fmt: skip
def test_a_pipe_in_the_place_of_a_file_is_put_right(
    pattern: str, *, damageable: Path, finished: Path, configure: Any, run_quietly: Any, digests: Any
) -> None:
    as_pipe(sorted(damageable.glob(pattern))[0])
    main(["explain", str(damageable), "trusted/nothing"])
    main(["verify", str(damageable)])
    # Made by another config first, so that what is there is looked at.
    run_quietly(configure(damageable, "judge.min_side_px=2"))
    assert run_quietly(configure(damageable)).exit_code == 0
    assert verify(str(damageable)) == []
    assert digests_of_current(damageable) == digests(finished)


def digests_of_current(run_dir: Path) -> dict[str, str]:
    """As `digests`, of the dataset that the manifest names alone."""
    from curation import storage

    folder = run_dir / read_manifest(str(run_dir))["dataset_dir"]
    return {
        info.key: storage.sha256_file(info.path)[0]
        for info in storage.list_files(str(folder))
        if not info.key.endswith(".html")
    }
