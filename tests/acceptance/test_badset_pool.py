"""Bad files in a pool: judged as they should be, in little memory, and none costs another its place."""

import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from badset import read_index, wrong_verdict
from deadly_decoder import DEADLY
from lvd_process import REPO, run_lvd, start_lvd
from outcome import Outcome
from PIL import Image

from pipelines.engine.watchdog import HANG_EXIT_CODE

pytestmark = pytest.mark.accept

MAX_RSS_BYTES = 1_000_000_000
NUM_PICTURES = 30
FOLDER = Path(__file__).parent
HIDDEN = {"Thumbs.db"}  # what systems leave beside pictures is no row, and a note


def test_every_bad_file_in_a_pool(shared_dir: Path, tmp_path: Path) -> None:
    made = shared_dir / "badset" / "made"
    config = tmp_path / "bad.yaml"
    config.write_text(yaml.safe_dump(pool_of(made)))
    command = ["run", str(config), f"--set=run_dir={tmp_path / 'run'}", "--executor", "local"]
    lvd = start_lvd(command, log=tmp_path / "log")
    exit_code, peak_bytes = lvd.wait_for_peak()
    assert exit_code == 0, lvd.text()
    assert not lvd.orphans()
    rows = {row["key"]: row for row in Outcome(tmp_path / "run").rows}
    index = {row["file"].removeprefix("made/"): row for row in read_index(shared_dir / "badset")}
    assert set(index) == {path.name for path in made.iterdir()}
    assert set(rows) == set(index) - HIDDEN
    notes = [(note["what"], note["detail"]) for note in Outcome(tmp_path / "run").manifest["notes"]]
    assert ("hidden", "passed over: Thumbs.db") in notes
    wrong = {}
    for name in rows:
        row = index[name]
        judged = rows[name]["stage"] in ("describe", "judge")
        if fault := wrong_verdict(row, rows[name]["reason"] if judged else None):
            wrong[name] = fault
    print(f"\n{len(rows)} files, peak of {peak_bytes / 1e6:.0f} MB")
    assert not wrong
    assert rows["dup_of_control.jpg"]["component"] == rows["good_control.jpg"]["component"] is not None
    assert peak_bytes < MAX_RSS_BYTES
    assert decoder_lines(lvd.text()) == []
    run_lvd(["verify", str(tmp_path / "run")], log=tmp_path / "log")


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_what_decoders_say_is_told_by_explain_and_not_on_the_console(executor: str, tmp_path: Path) -> None:
    """libtiff writes to file descriptor 2 from C, in several threads at once; Pillow uses warnings."""
    folder = tmp_path / "web"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(60):
        kind = ("tiff_lzw", "tiff_deflate", "group4", "lzma", "jpeg", "zstd")[number % 6]
        pixels = rng.integers(0, 256, (9, 12, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.convert("1" if kind == "group4" else "RGB").save(buffer, "TIFF", compression=kind)
        data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        places = rng.integers(8, len(data), 8)
        data[places] = rng.integers(0, 256, 8)
        (folder / f"{number:03d}.tif").write_bytes(data.tobytes())
    Image.fromarray(rng.integers(0, 256, (90, 90, 3), np.uint8)).save(folder / "good.png")
    (tmp_path / "web.yaml").write_text(yaml.safe_dump(pool_of(folder) | {"ingest": {"part_rows": 16}}))
    run_dir = str(tmp_path / "run")
    command = ["run", str(tmp_path / "web.yaml"), f"--set=run_dir={run_dir}", "--executor", executor]
    lvd = start_lvd(command, log=tmp_path / "log")
    assert lvd.wait(600) == 0, lvd.text()
    assert decoder_lines(lvd.text()) == []
    corrupt = [row for row in Outcome(tmp_path / "run").rows if row["reason"] == "corrupt"]
    assert len(corrupt) > 10
    explain = [sys.executable, "-m", "pipelines.cli", "explain", run_dir]
    told = [
        subprocess.run([*explain, row["key"]], cwd=REPO, check=True, capture_output=True, text=True).stdout
        for row in corrupt[:6]
    ]
    assert all("The decoder said: " in text for text in told)
    assert any("libtiff: " in text for text in told)


def decoder_lines(text: str) -> list[str]:
    """Lines of a log that no program of ours has written."""
    words = ("Decode", "libtiff", "TIFF", "JPEG", "libpng", "Warning", "PIL", "warnings.warn", "EXIF")
    return [line for line in text.splitlines() if any(word in line for word in words)]


def pool_of(folder: Path) -> dict[str, Any]:
    """A config with one pool."""
    source = {"kind": "folder", "path": str(folder)}
    return {"pools": {"web": {"role": "uncurated", "sources": [source]}}}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config over pictures of noise, and two files that a sound decoder calls no images."""
    root = tmp_path_factory.mktemp("deadly")
    (root / "web").mkdir()
    rng = np.random.default_rng(5)
    for number in range(NUM_PICTURES):
        pixels = rng.integers(0, 256, (9, 12, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)
        picture.save(root / "web" / f"{number:03d}.jpg")
    for name in ("007-deadly.jpg", "022-deadly.jpg"):
        (root / "web" / name).write_bytes(DEADLY + name.encode())
    config = pool_of(root / "web") | {"ingest": {"part_rows": 16}}
    (root / "web.yaml").write_text(yaml.safe_dump(config))
    # The same with a decoder that nothing kills, to compare with.
    command = ["run", str(root / "web.yaml"), f"--set=run_dir={root / 'sound'}", "--executor", "local"]
    run_lvd(command, log=root / "log")
    return root / "web.yaml"


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.ray)])
@pytest.mark.parametrize(("how", "death"), [("abort", -signal.SIGABRT), ("hang", HANG_EXIT_CODE)])
def test_a_deadly_file_costs_itself_alone(
    how: str, death: int, executor: str, web: Path, tmp_path: Path
) -> None:
    program = (sys.executable, str(FOLDER / "deadly_decoder.py"), how)
    command = ["run", str(web), f"--set=run_dir={tmp_path / 'run'}", "--executor", executor]
    path = {"PYTHONPATH": f"{FOLDER}:{REPO}"}
    # The local executor works in the process of `lvd` itself. That dies of each of the two parts with a
    # deadly file, once: the next start takes the part aside.
    deaths = [death, death] if executor == "local" else []
    for expected in (*deaths, 0):
        lvd = start_lvd(command, log=tmp_path / "log", program=program, environment=path)
        assert lvd.wait(600) == expected, lvd.text()
        assert not lvd.orphans()
    check_deadly_rows(Outcome(tmp_path / "run"), Outcome(web.with_name("sound")))


def check_deadly_rows(outcome: Outcome, sound: Outcome) -> None:
    """The deadly files are condemned, and nothing else is another than without them."""
    for row, expected in zip(outcome.rows, sound.rows, strict=True):
        if "deadly" in row["key"]:
            assert expected["reason"] == "not_an_image"
            verdict = ("dropped", "describe", "crashed_decoder")
            assert (row["decision"], row["stage"], row["reason"]) == verdict
        else:
            assert row == expected
    tars = [[shard["sha256"] for shard in o.manifest["shards"]] for o in (outcome, sound)]
    assert tars[0] == tars[1]
