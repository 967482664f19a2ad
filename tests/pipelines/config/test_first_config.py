"""`lvd init` writes a config that runs."""

from pathlib import Path

import pytest

from curation.errors import ConfigError
from pipelines.cli.main import main
from pipelines.config.first_config import first_config, kind_of
from pipelines.config.run_config import load_config
from pipelines.demo.web import FOLDERS


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a/b.JPG", "c.png", "notes.txt"], "folder"),
        (["000.tar", "001.tar", "readme.jpg"], "tars"),
        (["000.tar.gz"], "tars"),
        (["part-0.parquet"], "parquet"),
        (["data.arrow", "dataset_info.json"], "huggingface"),
        (["crawl.warc.gz"], "warc"),
        ([".trash/a.tar", ".trash/b.tar", "x.webp"], "folder"),
    ],
)
def test_the_kind_is_told_by_names(names: list[str], kind: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert kind_of(tmp_path) == kind


@pytest.mark.parametrize("there", ["nothing", "text"])
def test_a_folder_without_images_is_said(there: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    if there == "text":
        folder.mkdir()
        (folder / "a.txt").touch()
    with pytest.raises(ConfigError, match="is no folder" if there == "nothing" else "looks like an image"):
        first_config("x", {"images": [str(folder)]})


def test_what_it_writes_is_run(web: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mine.yaml"
    odd = tmp_path / 'it\'s $HOME: "a"'
    odd.symlink_to(web / FOLDERS["web"])
    command = ["init", str(odd), "--trust", str(web / FOLDERS["trusted"]), "--holdout"]
    command += [str(web / FOLDERS["evaluation"]), "--out", str(config)]
    assert main(command) == 0
    assert f"lvd run {config}" in capsys.readouterr().out
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    assert load_config(str(config), []).pools["images"].sources[0].path == str(odd)
    run = ["run", str(config), "--executor", "local", "--set", f"run_dir={tmp_path / 'run'}"]
    assert main([*run, "--until", "judge"]) == 0
