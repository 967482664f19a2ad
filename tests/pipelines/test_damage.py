"""A hash that is known is asked: what is damaged is made anew or refused by name, and never used."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation import local_files, storage
from curation.errors import IntegrityError, LvdError
from curation.local_files import remove_temporaries
from pipelines.answers.find_image import find_images
from pipelines.answers.finished_run import require_run
from pipelines.answers.verify import verify
from pipelines.cli.main import main
from pipelines.config.listed import entry_of
from pipelines.config.run_dir import read_manifest
from pipelines.engine.lock import lock
from pipelines.report.write import write_report

Digests = Callable[[Path], dict[str, str]]


def pick(run_dir: Path, pattern: str) -> Path:
    return sorted(run_dir.glob(pattern))[0]


def flip(path: Path, at: float = 0.5) -> None:
    """One bit other than it was, and nothing that a length or a time would tell."""
    was = path.stat()
    with path.open("r+b") as file:
        file.seek(int(was.st_size * at))
        byte = file.read(1)[0] ^ 0x10
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte]))
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


@pytest.fixture
def unpublished(damageable: Path) -> Path:
    """A run whose every step is done, and whose dataset is not assembled yet."""
    [dataset] = damageable.glob("dataset-*")
    shutil.rmtree(dataset)
    (damageable / "manifest.json").unlink()
    return damageable


@pytest.mark.parametrize(
    "pattern",
    [
        "steps/shard/*/*.tar",
        "steps/shard/*/0*.parquet",
        "steps/lineage/*/lineage-*.parquet",
        "steps/lineage/*/selection-*.parquet",
    ],
)
def test_what_is_damaged_below_steps_is_made_anew_before_it_is_published(
    *, unpublished: Path, finished: Path, pattern: str, configure: Any, run_quietly: Any, digests: Digests
) -> None:
    flip(pick(unpublished, pattern))
    assert run_quietly(configure(unpublished)).exit_code == 0
    assert digests(unpublished) == digests(finished)
    assert verify(str(unpublished)) == []


@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_config_is_what_its_name_says(damageable: Path, damage: str) -> None:
    path = pick(damageable, "configs/*.yaml")
    (damageable / "run.yaml").unlink()
    text = path.read_text()
    match damage:
        case "changed":
            path.write_text(re.sub(r"(phash_radius: )\d+", r"\g<1>3", text))
        case "cut":
            path.write_text(text[: text.index("dedup:")])
    assert path.read_text() != text
    with pytest.raises(LvdError, match=path.name):
        _ = require_run(str(damageable)).config


@pytest.mark.parametrize(
    "pattern", ["dataset-*/index/*.parquet", "dataset-*/report.html", "dataset-*/index.json"]
)
def test_every_file_of_the_dataset_is_proved(damageable: Path, pattern: str) -> None:
    path = pick(damageable, pattern)
    if path.name == "index.json":
        path.write_text(path.read_text().replace("\n", "  \n", 1))
    else:
        flip(path)
    assert path.name in " ".join(verify(str(damageable)))


def test_a_file_and_its_link_in_the_dataset_are_both_put_right(
    damageable: Path, finished: Path, configure: Any, run_quietly: Any, digests: Digests
) -> None:
    """As the file system has them: one file of two names, damaged for both."""
    for pattern, of_step in (("*.tar", "shard/*/*.tar"), ("lineage/*.parquet", "lineage/*/lineage-*")):
        linked = pick(damageable, f"dataset-*/{pattern}")
        [other] = [
            one for one in damageable.glob(f"steps/{of_step}") if one.read_bytes() == linked.read_bytes()
        ]
        linked.unlink()
        os.link(other, linked)
        flip(linked)
    assert run_quietly(configure(damageable)).exit_code == 0
    assert digests(damageable) == digests(finished)
    assert verify(str(damageable)) == []


@pytest.mark.parametrize(
    "pattern",
    [
        "steps/ingest/*/part-000000.parquet",
        "steps/describe/*/embeddings.npy",
        "steps/judge/*/verdicts.parquet",
        "steps/dedup_components/*/*.parquet",
        "steps/select/*/outcome.npy",
        "steps/describe/*/receipt.json",
        "steps/lineage/*/receipt.json",
    ],
)
def test_a_step_that_reads_what_is_damaged_has_it_made_anew(
    *, unpublished: Path, finished: Path, pattern: str, configure: Any, run_quietly: Any, digests: Digests
) -> None:
    flip(pick(unpublished, pattern), at=0.4)
    for steps in ("judge", "dedup_components", "select", "shard", "lineage"):  # they ask all before them
        if f"/{steps}/" not in pattern:
            shutil.rmtree(unpublished / "steps" / steps)
    for markers in unpublished.glob("steps/*/markers"):
        shutil.rmtree(markers)
    assert run_quietly(configure(unpublished)).exit_code == 0
    assert digests(unpublished) == digests(finished)


@pytest.mark.parametrize(
    "pattern",
    [
        "steps/retrieve/*/hits.parquet",
        "steps/decontaminate_leaks/*/leaks.parquet",
        "steps/dedup_components/*/copies.parquet",
        "steps/judge/*/verdicts.parquet",
    ],
)
def test_what_the_report_alone_reads_is_made_anew_too(
    *, damageable: Path, pattern: str, configure: Any, run_quietly: Any
) -> None:
    """After the dataset is made, by another config whose steps have no need of it."""
    path = pick(damageable, pattern)
    whole = path.read_bytes()
    flip(path)
    assert run_quietly(configure(damageable, "shard.max_samples=20")).exit_code == 0
    assert path.read_bytes() == whole
    assert verify(str(damageable)) == []


def test_what_is_damaged_again_is_refused_each_time(
    unpublished: Path, configure: Any, run_quietly: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that damages what is written: no later run takes the bytes that an earlier one refused."""
    real = storage.publish_file

    def damaging(temp_path: str | Path, path: str, *, replace: bool = False) -> None:
        real(temp_path, path, replace=replace)
        if "/shard/" in path and path.endswith(".tar"):
            flip(Path(path))

    flip(pick(unpublished, "steps/shard/*/*.tar"))
    with monkeypatch.context() as disk:
        disk.setattr(storage, "publish_file", damaging)
        for _ in range(2):
            with pytest.raises(IntegrityError, match="Check the disk"):
                run_quietly(configure(unpublished))
            assert not (unpublished / "manifest.json").exists()
    assert run_quietly(configure(unpublished)).exit_code == 0
    assert verify(str(unpublished)) == []


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_table_of_the_dataset_is_not_answered_from(damageable: Path, damage: str) -> None:
    path = pick(damageable, "dataset-*/lineage/*.parquet")
    flip(path) if damage == "flipped" else path.unlink()
    with pytest.raises(IntegrityError, match=path.name):
        find_images(require_run(str(damageable)), "curated/nothing")
    with pytest.raises(IntegrityError, match=path.name):
        write_report(str(damageable))


def test_a_report_is_listed_as_it_is(damageable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written anew it is listed anew; and killed in between, the manifest lists none rather than another."""
    path = pick(damageable, "dataset-*/report.html")
    name = str(path.relative_to(damageable))
    path.write_text("spoiled")
    assert "report.html" in " ".join(verify(str(damageable)))
    assert main(["report", str(damageable)]) == 0
    assert verify(str(damageable)) == []
    real = storage.publish_bytes

    def killed(path: str, data: bytes, *, replace: bool = False) -> None:
        real(path, data, replace=replace)
        if path.endswith(".html"):
            raise KeyboardInterrupt

    monkeypatch.setattr(storage, "publish_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(str(damageable))
    monkeypatch.undo()
    manifest = read_manifest(str(damageable))
    assert entry_of(manifest, name) is None
    assert verify(str(damageable)) == []


def test_what_a_report_cannot_be_written_from_is_made_anew_by_the_next_run(
    damageable: Path, configure: Any, run_quietly: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the error says, of the same config, which has nothing else to do."""
    path = pick(damageable, "steps/retrieve/*/hits.parquet")
    whole = path.read_bytes()
    flip(path)
    assert main(["report", str(damageable)]) == 1
    assert "Run the same config again" in capsys.readouterr().err
    assert verify(str(damageable)) == []
    assert run_quietly(configure(damageable)).exit_code == 0
    assert path.read_bytes() == whole
    assert main(["report", str(damageable)]) == 0
    assert verify(str(damageable)) == []


def test_a_report_is_not_written_under_a_run(damageable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both replace the manifest."""
    with lock(str(damageable)):
        assert main(["report", str(damageable)]) == 1
    assert "Another run owns" in capsys.readouterr().err


def test_a_dataset_of_an_earlier_version_is_still_read(damageable: Path) -> None:
    """Its manifest lists neither indexes nor a report."""
    manifest = read_manifest(str(damageable))
    del manifest["files"]
    (damageable / "manifest.json").write_text(json.dumps(manifest))
    assert verify(str(damageable)) == []
    assert main(["report", str(damageable)]) == 0
    assert verify(str(damageable)) == []


def test_temporaries_do_not_outlive_the_resume(damageable: Path, configure: Any, run_quietly: Any) -> None:
    """A process that is killed while it publishes a file leaves it under another name, wherever that was."""
    targets = [damageable / "manifest.json", damageable / "run.yaml", pick(damageable, "configs/*")]
    targets += [pick(damageable, f"dataset-*/{name}") for name in ("*.tar", "index/*", "lineage/*", "*.html")]
    targets += [pick(damageable, f"steps/describe/{name}") for name in ("markers/*", "*/receipt.json")]
    left = [path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp") for path in targets]
    for path in left:
        path.write_bytes(b"half")
    own = damageable / "pretrain" / f".pretrain.yaml.{uuid.uuid4().hex}.tmp"  # of a training that goes on
    own.parent.mkdir()
    own.write_bytes(b"half")
    assert run_quietly(configure(damageable)).exit_code == 0
    assert [path for path in left if path.exists()] == []
    assert own.exists()


def test_a_temporary_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As storage names it; what only looks alike is somebody's file."""
    kept = [tmp_path / name for name in (".hidden.tmp", "a.tmp", f"a.{'0' * 32}.tmp")]
    for path in kept:
        path.touch()

    names = []
    monkeypatch.setattr(local_files, "_rename", lambda temp, *_, **__: not names.append(temp.name))
    storage.publish_bytes(str(tmp_path / "a.txt"), b"half", replace=True)
    (tmp_path / names[0]).touch()
    remove_temporaries(tmp_path, deep=True)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_run_config_that_no_run_has_written_is_not_believed(
    damageable: Path, configure: Any, run_quietly: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut short it is a config of defaults, by which all that is in use may go."""
    path = damageable / "run.yaml"
    whole = path.read_bytes()
    for text in (
        whole[: whole.index(b"decontaminate:")],
        whole.replace(b"phash_radius: 6", b"phash_radius: 7"),
    ):
        path.write_bytes(text)
        for command in (["status"], ["clean", "--keep-current", "--yes"]):
            assert main([command[0], str(damageable), *command[1:]]) == 1
            assert "run.yaml is not what a run has written" in capsys.readouterr().err
    assert run_quietly(configure(damageable)).exit_code == 0
    assert main(["status", str(damageable)]) == 0
    assert "everything is done" in capsys.readouterr().out


def test_a_report_of_nothing_makes_nothing(tmp_path: Path) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert not (tmp_path / "nowhere").exists()
