"""What is done is not done again, what kills its worker is found, and an interruption leaves no trace."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.errors import ExecutorError, IntegrityError
from pipelines.engine.heal import set_aside
from pipelines.engine.progress import Progress
from pipelines.engine.runner import (
    CONDEMNED_REASON,
    DEATHS_TO_CONDEMN,
    FLOW,
    Death,
    Runner,
    StopHereError,
    find_killers,
    rescue,
)
from pipelines.engine.step import Attempt, Item, Receipt, Step, Work, find_receipt
from tests.fake_executor import FakeExecutor, Interrupted


@dataclass(frozen=True)
class Config:
    number: int


@dataclass(frozen=True)
class Named:
    name: int


def load(_settings: Config) -> Work[Named]:
    def work(attempt: Attempt[Named]) -> dict[str, Any]:
        (attempt.out / "out.txt").write_text(f"{attempt.task.name} {sorted(attempt.condemned.items())}")
        return {"num_rows": 1}

    return work


def step(stage: str = "describe", *, config: int = 1) -> Step:
    return Step(f"{stage}_step", 1, Config(config), load, stage)


def items(num: int, *, num_rows: int = 0) -> list[Item]:
    return [Item(Named(i), num_rows) for i in range(num)]


def runner(run_dir: Path, executor: FakeExecutor | None, until: str | None = None) -> Runner:
    return Runner(str(run_dir), executor, Progress(quiet=True), until)


def test_receipts_come_in_the_order_of_the_items(tmp_path: Path) -> None:
    receipts = runner(tmp_path, FakeExecutor()).run(step(), items(5))
    texts = [(tmp_path / receipt.folder / "out.txt").read_text() for receipt in receipts]
    assert texts == [f"{i} []" for i in range(5)]


def test_nothing_is_done_twice_and_what_grows_is_added(tmp_path: Path) -> None:
    first = runner(tmp_path, FakeExecutor()).run(step(), items(3))
    idle = FakeExecutor()
    assert runner(tmp_path, idle).run(step(), items(3)) == first
    assert idle.done == []
    grown = FakeExecutor()
    assert runner(tmp_path, grown).run(step(), items(5))[:3] == first
    assert len(grown.done) == 2
    changed = FakeExecutor()
    runner(tmp_path, changed).run(step(config=2), items(3))
    assert len(changed.done) == 3


def test_it_is_said_once_what_is_done_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda _self, text: said.append(text))
    later = step("judge")

    def run(first: Step, num: int = 3) -> None:
        everything = runner(tmp_path, FakeExecutor())
        everything.run(first, items(num))
        everything.run(replace(later, settings=first.settings, version=first.version), items(num))

    run(step())
    run(step())
    run(step(), 5)  # a pool that grows
    assert said == []
    run(step(config=2))
    run(replace(step(config=2), version=3))
    assert [text.partition(": ")[::2] for text in said] == [
        (
            "describe_step, and what follows from it, is done anew",
            "what is there was made by another config, from other sources or by another lvd",
        ),
        (
            "describe_step, and what follows from it, is done anew",
            "what is there was made by an earlier lvd (version 1 of this step; it has 3 now)",
        ),
    ]


def test_items_of_one_identity_are_done_once(tmp_path: Path) -> None:
    executor = FakeExecutor()
    receipts = runner(tmp_path, executor).run(step(), [*items(2), *items(2)])
    assert len(executor.done) == 2
    assert receipts[:2] == receipts[2:]
    again = FakeExecutor()
    assert runner(tmp_path, again).run(step(), [*items(2), *items(2)]) == receipts
    assert again.done == []


def test_a_marker_is_enough_and_is_not_believed_about_what_is_gone(tmp_path: Path) -> None:
    first = runner(tmp_path, FakeExecutor()).run(step(), items(3))
    (tmp_path / first[0].folder / "receipt.json").unlink()  # the marker holds a copy
    shutil.rmtree(tmp_path / first[1].folder)
    executor = FakeExecutor()
    again = runner(tmp_path, executor).run(step(), items(3))
    assert len(executor.done) == 1
    assert [receipt.digest for receipt in again] == [receipt.digest for receipt in first]
    assert (tmp_path / first[1].folder / "out.txt").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"receipts": ["{}", "{}"]}', '{"receipts": []}', "[1]", "\xff"])
def test_a_damaged_marker_is_passed_over_and_said(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only lists receipts, which are there."""
    first = runner(tmp_path, FakeExecutor()).run(step(), items(2))
    [marker] = (tmp_path / "steps" / "describe_step" / "markers").iterdir()
    whole = marker.read_bytes()
    marker.write_text(text, encoding="latin-1")
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda _self, line: said.append(line))
    idle = FakeExecutor()
    assert runner(tmp_path, idle).run(step(), items(2)) == first
    assert idle.done == []
    assert str(marker) in said[0]
    assert marker.read_bytes() == whole


@pytest.mark.parametrize("what", ["pipe", "deep"])
def test_a_marker_that_is_a_pipe_or_nested_beyond_measure_is_damaged(tmp_path: Path, what: str) -> None:
    executor = FakeExecutor()
    receipts = runner(tmp_path, executor).run(step(), items(3))
    [marker] = (tmp_path / "steps" / "describe_step" / "markers").iterdir()
    before = marker.read_bytes()
    marker.unlink()
    if what == "pipe":
        os.mkfifo(marker)
    else:
        marker.write_text("[" * 100_000)
    assert runner(tmp_path, executor).run(step(), items(3)) == receipts
    assert marker.read_bytes() == before


def test_a_marker_with_another_letter_is_damaged(tmp_path: Path) -> None:
    """Facts have no hash but that of the receipt: a flipped digit must not pass for one."""
    first = runner(tmp_path, FakeExecutor()).run(step(), items(2))
    [marker] = (tmp_path / "steps" / "describe_step" / "markers").iterdir()
    marker.write_text(marker.read_text().replace('num_rows\\": 1', 'num_rows\\": 2'))
    assert runner(tmp_path, FakeExecutor()).run(step(), items(2)) == first
    path = tmp_path / first[0].folder / "receipt.json"
    path.write_text(path.read_text().replace('"num_rows": 1', '"num_rows": 2'))
    with pytest.raises(IntegrityError, match=str(path)):
        find_receipt(str(tmp_path), step(), first[0].identity)


def test_what_is_set_aside_is_done_anew_in_its_own_generation(tmp_path: Path) -> None:
    [item] = items(1)
    for again in (False, True):
        this = (one := runner(tmp_path, FakeExecutor())).newest(step(), item, again=lambda _, a=again: a)
        [newest] = one.run(step(), [this])
    set_aside(str(tmp_path), newest.folder)
    healing = runner(tmp_path, FakeExecutor())
    [redone] = healing.run(step(), [healing.newest(step(), item, again=lambda _: False)])
    assert (redone.folder, redone.digest) == (newest.folder, newest.digest)
    # A run that was asked to look again has done so: what it heals makes it not look a third time.
    assert healing.anew().newest(step(), item, again=lambda _: True).generation == 1
    stale = healing.anew().newest(step(), item, again=lambda _: False, is_stale=lambda _: True)
    assert stale.generation == 2


def test_a_dry_run_stops_at_the_first_step_not_done(tmp_path: Path) -> None:
    runner(tmp_path, FakeExecutor()).run(step(), items(2))
    dry = runner(tmp_path, None)
    dry.run(step(), items(2))
    with pytest.raises(StopHereError):
        dry.run(step("judge"), items(3, num_rows=4))
    assert [(s.num_items, s.num_done, s.num_rows) for s in dry.states] == [(2, 2, 0), (3, 0, 12)]
    assert not (tmp_path / "steps" / "judge_step").exists()


@pytest.mark.parametrize("until", FLOW)
def test_until_stops_behind_its_stage_even_where_that_has_no_step(tmp_path: Path, until: str) -> None:
    flow = [stage for stage in FLOW if stage != "retrieve"]  # no curated pool: no step retrieves
    executor = runner(tmp_path, FakeExecutor(), until)
    done = []
    try:
        for stage in flow:
            executor.run(step(stage), items(1))
            done.append(stage)
    except StopHereError:
        pass
    assert done == [stage for stage in flow if FLOW.index(stage) <= FLOW.index(until)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, 9), max_size=4))
def test_interrupted_then_resumed_is_uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    total = 0
    for stop in [*stops, None]:
        executor = FakeExecutor(stop_at=stop)
        try:
            receipts = runner(run_dir, executor).run(step(), items(10))
        except Interrupted:
            total += len(executor.done)
            continue
        total += len(executor.done)
        break
    whole = runner(tmp_path_factory.mktemp("whole"), FakeExecutor()).run(step(), items(10))
    assert [receipt.digest for receipt in receipts] == [receipt.digest for receipt in whole]
    assert total == 10  # nothing twice


@settings(max_examples=60, deadline=None)
@given(num_rows=st.integers(1, 70), data=st.data())
def test_find_killers_finds_all_and_nobody_else(num_rows: int, data: st.DataObject) -> None:
    killers = data.draw(st.sets(st.integers(0, num_rows - 1), min_size=1, max_size=5))
    asked: list[range] = []

    def survives(rows: range) -> bool:
        asked.append(rows)
        return not killers & set(rows)

    assert find_killers(range(num_rows), survives) == sorted(killers)
    # Two halves a level and killer, and the second death of each.
    assert len(asked) <= len(killers) * (2 * num_rows.bit_length() + DEATHS_TO_CONDEMN)


def test_a_row_that_kills_once_is_not_condemned() -> None:
    answers = iter([False, True, True])  # half, then the same row again; the other half
    assert find_killers(range(2), lambda _rows: next(answers)) == []


def test_rescue_costs_the_killers_alone(tmp_path: Path) -> None:
    executor = FakeExecutor(killers=[2, 6])
    [receipt] = runner(tmp_path, executor).run(step(), items(1, num_rows=8))
    assert (tmp_path / receipt.folder / "out.txt").read_text() == (
        f"0 [(2, '{CONDEMNED_REASON}'), (6, '{CONDEMNED_REASON}')]"
    )


def test_a_death_that_does_not_repeat_costs_nothing(tmp_path: Path) -> None:
    executor = FakeExecutor()
    [item] = items(1, num_rows=8)
    receipt = rescue(executor, step(), item, run_dir=str(tmp_path), death=Death("once", True))
    assert executor.num_alone == 1
    assert (tmp_path / receipt.folder / "out.txt").read_text() == "0 []"


@pytest.mark.parametrize(("num_rows", "blame"), [(8, False), (0, True)])
def test_what_cannot_be_blamed_on_a_row_is_an_error(tmp_path: Path, num_rows: int, blame: bool) -> None:
    class Dying(FakeExecutor):
        def attempt(self, *_args: Any, **_kwargs: Any) -> Death:
            return Death("out of memory", blames_item=blame)

    with pytest.raises(ExecutorError, match="out of memory"):
        runner(tmp_path, Dying()).run(step(), items(1, num_rows=num_rows))
    assert find_receipt(str(tmp_path), step(), step().identity(items(1)[0])) is None


def test_the_others_are_done_before_a_death_is_looked_into(tmp_path: Path) -> None:
    class OneDies(FakeExecutor):
        def attempt(self, step: Step, item: Item, run_dir: str, **kwargs: Any) -> Receipt | Death:
            if item.task.name == 2:
                return Death("always", blames_item=True)
            return super().attempt(step, item, run_dir, **kwargs)

    with pytest.raises(ExecutorError):
        runner(tmp_path, OneDies()).run(step(), items(4))
    executor = FakeExecutor()
    runner(tmp_path, executor).run(step(), items(4))
    assert len(executor.done) == 1


def test_generations(tmp_path: Path) -> None:
    [item] = items(1)
    refresh = runner(tmp_path, FakeExecutor())
    seen = []
    for again in (False, False, True, False):
        this = refresh.newest(step(), item, again=lambda _receipt, again=again: again)
        seen.append((this.generation, this.before is not None))
        refresh.run(step(), [this])
    assert seen == [
        (0, False),
        (0, False),
        (1, True),
        (1, False),
    ]
    first, second = refresh.latest[0], refresh.latest[-1]
    assert refresh.passed == [first]  # by which the second is found
    assert first.identity != second.identity
