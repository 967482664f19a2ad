"""A pool that a stage takes away for one reason is no quiet success."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.schema import STAGES
from pipelines.answers.status import loss_line, summary_lines
from pipelines.cli.main import main
from pipelines.config.run_config import validate
from pipelines.report.write import write_report
from pipelines.stages.shard.losses import Loss, find_losses


def levels(pool: str, num_in: int, **dropped: dict[str, int]) -> list[dict[str, Any]]:
    """The funnel of one pool."""
    found = []
    for stage in STAGES:
        out = num_in - sum(dropped.get(stage, {}).values())
        found.append(
            {"stage": stage, "pool": pool, "in": num_in, "out": out, "dropped": dropped.get(stage, {})}
        )
        num_in = out
    return found


@pytest.mark.parametrize(
    ("num_in", "dropped", "expected"),
    [
        (10, {"judge": {"too_small": 10}}, ("judge", "too_small", 10, 0, 10)),
        (1, {"describe": {"not_an_image": 1}}, ("describe", "not_an_image", 1, 0, 1)),
        (100, {"describe": {"corrupt": 50}, "dedup": {"near_copy": 49}}, ("dedup", "near_copy", 50, 1, 49)),
        (40, {"judge": {"no_embedding": 38}}, ("judge", "no_embedding", 40, 2, 38)),
        (1000, {"judge": {"nsfw": 950, "aspect": 40}}, ("judge", "nsfw", 1000, 10, 950)),
        (5, {"retrieve": {"not_retrieved": 5}}, ("retrieve", "not_retrieved", 5, 0, 5)),
        # Not for one reason, of few images, or as it is meant to be.
        (1000, {"judge": {"nsfw": 500, "aspect": 490}}, None),
        (10, {"judge": {"too_small": 9}}, None),
        (40, {"judge": {"no_embedding": 37}}, None),
        (1000, {"retrieve": {"not_retrieved": 999}}, None),
        (10, {"select": {"holdout": 10}}, None),
        (10, {"select": {"query_only": 10}}, None),
    ],
)
def test_one_reason_that_takes_a_pool(num_in: int, dropped: dict[str, Any], expected: Any) -> None:
    found = find_losses(levels("web", num_in, **dropped), {})
    said = [(loss.stage, loss.reason, loss.num_in, loss.num_out, loss.num_dropped) for loss in found]
    assert said == ([] if expected is None else [expected])


def test_it_names_one_that_went_and_one_that_is_left() -> None:
    examples = {
        "web": {
            "describe.corrupt": "a.jpg",
            "judge.too_small": "b.jpg",
            "retrieve.not_retrieved": "c.jpg",
        }
    }
    funnel = levels("web", 100, describe={"corrupt": 2}, judge={"too_small": 97}) + levels("empty", 0)
    assert find_losses(funnel, examples) == [
        Loss("web", "judge", "too_small", 98, 1, 97, "b.jpg", "c.jpg"),
        Loss("empty", "ingest", None, 0, 0, 0, None, None),
    ]


def test_words_show_no_escapes_of_a_terminal() -> None:
    line = loss_line(vars(Loss("web", "judge", "nsfw", 9, 0, 9, "\x1b[2Ja.jpg", None)))
    assert "\\u001b[2Ja.jpg" in line
    assert "\x1b" not in line


def noise(seed: int) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((160, 120), Image.Resampling.NEAREST)


def lines_of(run_dir: Path) -> str:
    manifest = json.loads((run_dir / "manifest.json").read_text())
    return "\n".join(summary_lines(str(run_dir), manifest))


@pytest.fixture
def run_folder(tmp_path: Path, run_quietly: Callable[..., Any]) -> Callable[..., int]:
    def do(folder: Path, **settings: Any) -> int:
        pools = {"web": {"role": "uncurated", "sources": [{"kind": "folder", "path": str(folder)}]}}
        data = {"name": "x", "run_dir": str(tmp_path / "run"), "pools": pools, **settings}
        return run_quietly(validate(data | {"executor": {"kind": "local"}}, where="the test")).exit_code

    return do


def test_a_folder_without_a_picture_is_no_success(tmp_path: Path, run_folder: Any) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("no picture")
    assert run_folder(tmp_path / "in") == 4
    last = lines_of(tmp_path / "run").splitlines()[-2:]
    assert last == [
        "LOST: of pool web nothing is left after describe: 1 × not_an_image (The file is of no known image "
        "format, whatever its name says), such as readme.txt.",
        "EMPTY: no image is in the dataset.",
    ]
    page = Path(write_report(str(tmp_path / "run"))).read_text()
    assert "Nothing left of pool web after describe." in page


def test_vectors_of_other_keys_are_no_success(tmp_path: Path, run_folder: Any) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        noise(number).save(tmp_path / "in" / f"{number}.jpg")
    vectors = pa.array(np.eye(4, 8, dtype=np.float32).tolist(), pa.list_(pa.float32()))
    table = pa.table({"key": [str(number) for number in range(4)], "embedding": vectors})
    pq.write_table(table, tmp_path / "vectors.parquet")
    embed = {"embedder": f"precomputed:{tmp_path / 'vectors.parquet'}"}
    assert run_folder(tmp_path / "in", describe={"embed": embed}) == 4
    assert "nothing is left after judge: 4 × no_embedding" in lines_of(tmp_path / "run")
    said = "lacks the keys of 4 images, such as '0.jpg'; a key that it has is '0'"
    assert said in lines_of(tmp_path / "run")


def test_an_image_whose_key_has_no_vector_is_named(tmp_path: Path, run_folder: Any) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        noise(number).save(tmp_path / "in" / f"{number}.jpg")
    vectors = pa.array([[*np.eye(4, 8, dtype=np.float32)[0]], None, [1.0] * 8], pa.list_(pa.float32()))
    table = pa.table({"key": ["0.jpg", "1.jpg", "2.jpg"], "embedding": vectors})
    pq.write_table(table, tmp_path / "vectors.parquet")
    embed = {"embedder": f"precomputed:{tmp_path / 'vectors.parquet'}"}
    assert run_folder(tmp_path / "in", describe={"embed": embed}) == 0
    said = "lacks the keys of 1 images, such as '3.jpg'; a key that it has is '0.jpg'"
    assert said in lines_of(tmp_path / "run")


def test_the_command_says_it_and_trains_on_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no picture")
    config = tmp_path / "c.yaml"
    config.write_text(
        f"name: x\nrun_dir: {tmp_path / 'run'}\nexecutor: {{kind: local}}\n"
        f"pools: {{web: {{role: uncurated, sources: [{{kind: folder, path: {tmp_path / 'in'}}}]}}}}\n"
        "pretrain: {batch_images: 2, schedule: {iterations: 1}}\n"
    )
    for _ in range(2):  # a run with nothing to do says the same
        assert main(["run", str(config)]) == 4
        assert "EMPTY: no image is in the dataset." in capsys.readouterr().out
    assert not (tmp_path / "run" / "pretrain").exists()
    main(["status", str(tmp_path / "run")])
    assert "LOST: of pool web nothing is left after describe" in capsys.readouterr().out


def test_notes_reach_the_manifest_the_last_lines_and_the_report(
    tmp_path: Path, run_quietly: Callable[..., Any]
) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        with tarfile.open(tmp_path / "in" / f"{name}.tar", "w") as tar:
            noise(ord(name)).save(tmp_path / "x.jpg")
            tar.add(tmp_path / "x.jpg", "x.jpg")
            link = tarfile.TarInfo("y.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    sources = [{"kind": "tars", "path": str(tmp_path / "in")}]
    pools = {name: {"role": "uncurated", "sources": sources} for name in ("web", "again")}
    data = {"name": "x", "run_dir": str(tmp_path / "run"), "executor": {"kind": "local"}, "pools": pools}
    result = run_quietly(validate(data, where="the test"))
    assert result.exit_code == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert [(note["path"], note["what"], note["detail"]) for note in manifest["notes"]] == [
        (str(tmp_path / "in" / f"{name}.tar"), "not_regular", "left out: 1 symbolic link") for name in "ab"
    ]
    line = f"note: {tmp_path}/in/a.tar: not_regular: left out: 1 symbolic link (and 1 more, in manifest.json)"
    assert line in lines_of(tmp_path / "run").splitlines()
    page = Path(write_report(str(tmp_path / "run"))).read_text()
    assert "2 notes" in page
    assert "left out: 1 symbolic link" in page
