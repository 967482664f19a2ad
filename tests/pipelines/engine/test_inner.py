"""Inner steps lie within their outcome, are resumed one by one, and are gone once it is published."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest

from curation import storage
from curation.errors import IntegrityError
from pipelines.engine.digest import Unhashed
from pipelines.engine.heal import item_to_heal, set_aside
from pipelines.engine.inner import FOUND_BY_PLACE, INNER, InnerSteps, States, run_in_steps
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner, StopHereError
from pipelines.engine.step import Attempt, Item, NoSettings, Receipt, Step, Work
from tests.fake_executor import FakeExecutor, Interrupted

NUM_STATES, NUM_GROUPS = 5, 3


@dataclass(frozen=True)
class Group:
    """A number for each group, to be added to what the state before says."""

    number: int
    before: int


@dataclass(frozen=True)
class State:
    made_from: Annotated[tuple[int, ...] | None, FOUND_BY_PLACE] = None


@dataclass(frozen=True)
class Outcome:
    name: str
    made: Annotated[int | None, Unhashed("the same, of steps or at once")] = None


def load_group(_settings: NoSettings) -> Work[Group]:
    def work(attempt: Attempt[Group]) -> dict[str, Any]:
        (attempt.out / "group.txt").write_text("group")
        return {"value": attempt.task.before + attempt.task.number}

    return work


def load_state(_settings: NoSettings) -> Work[State]:
    def work(attempt: Attempt[State]) -> dict[str, Any]:
        assert attempt.task.made_from is not None
        (attempt.out / "state.txt").write_text("state")
        return {"value": sum(attempt.task.made_from)}

    return work


def load_outcome(_settings: NoSettings) -> Work[Outcome]:
    def work(attempt: Attempt[Outcome]) -> dict[str, Any]:
        made = attempt.task.made
        return {"value": by_hand() if made is None else made}

    return work


def by_hand() -> int:
    value = 0
    for _ in range(NUM_STATES):
        value = sum(value + group for group in range(NUM_GROUPS))
    return value


GROUPS = Step("groups", 1, NoSettings(), load_group, "cluster")
STATES = Step("states", 1, NoSettings(), load_state, "cluster")
OUTCOME = Step("outcome", 1, NoSettings(), load_outcome, "cluster")
ITEM = Item(Outcome("sum"))


def make(inner: InnerSteps, *, keep: int | None = 2, reads_inner: bool = False) -> Item[Outcome]:
    states = States(inner, STATES, Item(State()), keep=keep, reads_inner=reads_inner)

    def add_up(inside: InnerSteps) -> Item[State]:
        before = states.kept[-1].facts["value"] if states.kept else 0
        found = inside.run_shown(GROUPS, [Item(Group(number, before)) for number in range(NUM_GROUPS)])
        return Item(State(tuple(one.facts["value"] for one in found)))

    while states.number < NUM_STATES - 1:
        states.add(add_up)
    return replace(ITEM, task=replace(ITEM.task, made=states.kept[-1].facts["value"]))


def runner(run_dir: Path, executor: FakeExecutor | None) -> Runner:
    return Runner(str(run_dir), executor, Progress(quiet=True))


def outcome(run_dir: Path, executor: FakeExecutor | None, step: Step = OUTCOME) -> Receipt:
    return run_in_steps(runner(run_dir, executor), step, ITEM, make)


def inner_folders(run_dir: Path) -> list[Path]:
    return list(run_dir.glob(f"steps/*/*/{INNER}"))


def lying(run_dir: Path, name: str) -> int:
    return len(list(run_dir.glob(f"steps/**/{name}/*/receipt.json")))


def test_it_is_the_outcome_of_one_task_and_its_steps_are_gone(tmp_path: Path) -> None:
    executor = FakeExecutor()
    receipt = outcome(tmp_path / "run", executor)
    assert executor.done.count("groups") == NUM_STATES * NUM_GROUPS
    assert inner_folders(tmp_path / "run") == []
    at_once = run_in_steps(runner(tmp_path / "other", FakeExecutor()), OUTCOME, ITEM, None)
    assert receipt.facts == at_once.facts == {"value": by_hand()}
    assert receipt.identity == at_once.identity
    executor.done.clear()
    assert outcome(tmp_path / "run", executor) == receipt
    assert executor.done == []


@pytest.mark.parametrize("num_events", [1, 3, 4])
@pytest.mark.parametrize("removed", ["remove_file", "remove_tree"])
def test_killed_anywhere_it_does_nothing_twice_and_leaves_nothing(
    tmp_path: Path, num_events: int, removed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any item, and before any removal: also those after the outcome is published."""
    remove, current, done, deaths = getattr(storage, removed), FakeExecutor(), [], 0

    def dies(path: str) -> None:
        current.event()
        remove(path)

    monkeypatch.setattr(storage, removed, dies)
    after_the_outcome = False
    for _ in range(100):
        current = FakeExecutor(stop_at=num_events)
        try:
            outcome(tmp_path, current)
        except Interrupted:
            deaths += 1
            after_the_outcome |= (
                bool(list(tmp_path.glob("steps/outcome/*/receipt.json"))) and inner_folders(tmp_path) != []
            )
            done += current.done
            continue
        done += current.done
        break
    assert deaths > 3
    assert after_the_outcome or num_events > 1
    assert len(done) == NUM_STATES * (NUM_GROUPS + 1) + 1
    assert inner_folders(tmp_path) == []


def test_a_dry_run_does_and_removes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StopHereError):
        outcome(tmp_path, None)
    assert not (tmp_path / "steps").exists()
    made = outcome(tmp_path, FakeExecutor())
    left = tmp_path / made.folder / INNER / "0" / "states" / "left.txt"
    left.parent.mkdir(parents=True)
    left.touch()
    assert outcome(tmp_path, None) == made
    assert left.exists(), "another run may be at work"
    assert outcome(tmp_path, FakeExecutor()) == made
    assert inner_folders(tmp_path) == []


def test_nothing_that_another_version_has_begun_is_taken(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        outcome(tmp_path, FakeExecutor(stop_at=10))
    executor = FakeExecutor()
    outcome(tmp_path, executor, replace(OUTCOME, version=2))
    assert len(executor.done) == NUM_STATES * (NUM_GROUPS + 1) + 1


@pytest.mark.parametrize(
    ("keep", "reads_inner", "states", "groups"),
    [(1, False, 1, 0), (2, False, 2, 0), (None, False, NUM_STATES, 0), (None, True, NUM_STATES, NUM_GROUPS)],
)
def test_what_stays_of_a_chain(
    tmp_path: Path, *, keep: int | None, reads_inner: bool, states: int, groups: int
) -> None:
    inner = InnerSteps.of(runner(tmp_path, FakeExecutor()), OUTCOME, ITEM)
    make(inner, keep=keep, reads_inner=reads_inner)
    assert (lying(tmp_path, "states"), lying(tmp_path, "groups")) == (states, groups)
    assert inner.lying() == {str(number) for number in range(NUM_STATES - states, NUM_STATES)}
    inner.forget()
    assert inner.lying() == set()


def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    """Where a state that has to stay is set aside, the chain begins anew."""
    with pytest.raises(Interrupted):
        outcome(tmp_path, FakeExecutor(stop_at=3 * (NUM_GROUPS + 1)))
    assert lying(tmp_path, "states") == 2
    [older] = tmp_path.glob("steps/outcome/*/inner/1/states/*/state.txt")
    error = IntegrityError("damaged", path=str(older))
    folder = item_to_heal(str(tmp_path), error, receipts={}, healed=())
    assert tmp_path / folder == older.parent
    set_aside(str(tmp_path), folder)
    executor = FakeExecutor()
    assert outcome(tmp_path, executor).facts == {"value": by_hand()}
    # State 2 is found when the chain has come to it.
    assert executor.done.count("states") == NUM_STATES - 1
    assert inner_folders(tmp_path) == []


def test_the_files_of_inner_steps_are_found(tmp_path: Path) -> None:
    inner = InnerSteps(runner(tmp_path, FakeExecutor()), "steps/outcome/one/inner")
    items = [Item(Group(number, 0)) for number in range(2)]
    assert inner.find(GROUPS, items[0]) is None
    receipts = inner.run(GROUPS, items)
    assert inner.find(GROUPS, items[1]) == receipts[1]
    assert all(Path(file.path).read_text() == "group" for file in inner.files(receipts, "group.txt"))
    other = InnerSteps(inner.runner, "steps/outcome/other/inner")
    assert other.find(GROUPS, items[0]) is None
