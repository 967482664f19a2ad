"""Progress moves within an item, whoever works on it, and leaves nothing behind."""

import io
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.engine import progress as module
from pipelines.engine import row_notes
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress, RowCount
from pipelines.engine.row_notes import SCRATCH, RowNote, noted_rows
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Item, NoSettings, Receipt, Step, Work
from pipelines.run import run

NUM_ROWS = 10


@dataclass(frozen=True)
class Number:
    value: int


def load(_settings: NoSettings) -> Work[Number]:
    """Ten rows, one after the other."""

    def work(attempt: Attempt) -> dict[str, Any]:
        for row in range(NUM_ROWS):
            time.sleep(0.05)
            attempt.tell(row + 1)
        (attempt.out / "out.txt").write_text("done")
        return {"num_rows": NUM_ROWS}

    return work


STEP = Step("describe", 1, NoSettings(), load, "describe")
ITEMS = [Item(Number(i), NUM_ROWS) for i in range(2)]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes and lines come at once, and not every few seconds."""
    monkeypatch.setattr(row_notes, "EVERY_S", 0.0)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(module, "PLAIN_LINE_EVERY_S", 0.04)


def receipt(identity: str, num_rows: int) -> Receipt:
    return Receipt("describe", identity, "", {}, {"num_rows": num_rows})


@pytest.mark.usefixtures("soon")
def test_lines_move_within_an_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Runner(str(tmp_path), LocalExecutor(), Progress()).run(STEP, ITEMS)
    lines = capsys.readouterr().err.splitlines()
    form = r"describe: (\d)/2, (\d+) of 20 images, [\d,]+ images/s, about \d+ s left"
    found = [re.fullmatch(form, line) for line in lines[:-1]]
    seen = [(int(match[1]), int(match[2])) for match in found if match]
    assert len(seen) == len(lines) - 1
    assert seen == sorted(seen)
    assert any(0 < images < NUM_ROWS for items, images in seen if items == 0)
    assert any(NUM_ROWS < images < 2 * NUM_ROWS for items, images in seen if items == 1)
    assert lines[-1].startswith("describe: 2/2 in ")
    assert list((tmp_path / SCRATCH).iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


@pytest.mark.usefixtures("soon")
def test_what_was_done_before_counts_for_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    rows = RowCount(10_000, 4_000, lambda _over: 3_000)
    with Progress().step("describe", total=8, done=3, rows=rows):
        time.sleep(0.2)
    line = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(r"describe: 3/8, 7,000 of 10,000 images, [\d,]+ images/s, about \d+ s left", line)


@pytest.mark.usefixtures("soon")
def test_nothing_is_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().step("shard", total=2, done=0, rows=RowCount(in_work=lambda _over: 5)):
        time.sleep(0.3)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"shard: 0/2, 5 images, [\d,]+ images/s", first)
    assert last.startswith("shard: 2/2 in ")


def test_lines_are_ten_seconds_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().step("describe", total=3, done=0, rows=RowCount(30, 0, lambda _over: 5)) as advance:
        advance(receipt("a", 10))
        time.sleep(1.2)
        advance(receipt("b", 10))
    assert [line.split(" in ")[0] for line in capsys.readouterr().err.splitlines()] == ["describe: 3/3"]


@pytest.mark.usefixtures("soon")
def test_the_bar_moves_within_an_item(tmp_path: Path) -> None:
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    Runner(str(tmp_path), LocalExecutor(), Progress(console=terminal)).run(STEP, ITEMS)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"0/2 +[1-9] of 20 images", text)
    assert "20 of 20 images" in text


def test_a_note_is_of_an_item_in_work_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_notes, "EVERY_S", 0.0)
    assert noted_rows(str(tmp_path)) == {}
    one, other = RowNote(str(tmp_path), "one"), RowNote(str(tmp_path), "other")
    one.tell(1)  # no folder: that ends no work, and is not tried again
    (tmp_path / SCRATCH).mkdir()
    one.tell(2)
    other.tell(3)
    (tmp_path / SCRATCH / "rows-torn").touch()
    (tmp_path / SCRATCH / "rows-odd").mkdir()
    assert noted_rows(str(tmp_path)) == {"other": 3}
    other.remove()
    assert noted_rows(str(tmp_path)) == {}
    nowhere = RowNote("s3://bucket/run", "one")
    nowhere.tell(1)
    nowhere.remove()
    assert noted_rows("s3://bucket/run") == {}


def test_a_note_is_written_every_few_seconds_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(row_notes.time, "monotonic", lambda: now[0])
    (tmp_path / SCRATCH).mkdir()
    note, seen = RowNote(str(tmp_path), "one"), []
    for row in range(50):
        now[0] += 0.1
        note.tell(row + 1)
        seen.append(noted_rows(str(tmp_path)).get("one", 0))
    assert len(set(seen) - {0}) == 2


@pytest.mark.usefixtures("soon")
def test_a_real_run_shows_images_and_is_the_same(
    *,
    tmp_path: Path,
    finished: Path,
    configure: Callable[..., Any],
    digests: Callable[[Path], dict[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(configure(tmp_path / "run"), progress=Progress())
    lines = capsys.readouterr().err.splitlines()
    [total] = {m[1] for line in lines if (m := re.match(r"describe: 0/\d+, \d+ of (\d+) images", line))}
    assert int(total) > 200
    assert digests(tmp_path / "run") == digests(finished)
    assert not (tmp_path / "run" / SCRATCH).exists()


def test_a_note_that_outlives_its_process_goes_with_the_next_run(
    tmp_path: Path, configure: Callable[..., Any], run_quietly: Callable[..., Any]
) -> None:
    pid = os.fork()
    if pid == 0:
        (tmp_path / "run" / SCRATCH).mkdir(parents=True)
        row_notes.EVERY_S = 0.0
        RowNote(str(tmp_path / "run"), "dead").tell(7)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert noted_rows(str(tmp_path / "run")) == {"dead": 7}
    run_quietly(configure(tmp_path / "run"), until="ingest")
    assert noted_rows(str(tmp_path / "run")) == {}
