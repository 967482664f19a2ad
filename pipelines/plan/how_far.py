"""How far each step of a run is: what `plan` and `status` list."""

from collections.abc import Sequence

from pipelines.config.paths import absolute
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import StepState
from pipelines.lvd import curate
from pipelines.plan.dry_run import dry_run
from pipelines.plan.work import forecast
from pipelines.stages.forecast import Shares, Sizes
from pipelines.words import table_lines


def how_far(config: RunConfig) -> list[StepState]:
    """How far each step is, as far as that can be told: the last one listed is the first with work to do."""
    return dry_run(absolute(config), curate).runner.states


def plan_lines(states: Sequence[StepState], to_come: Sequence[str]) -> list[str]:
    """How far steps are, as a table, with the names of those that nobody can count yet."""
    rows: list[tuple[str, ...]] = [("stage", "step", "items", "done", "to do", "images to do")]
    for state in states:
        numbers = (state.num_items, state.num_done, state.num_items - state.num_done)
        images = f"{state.num_rows:,}" if state.num_rows else ""
        rows.append((state.stage, state.name, *(f"{number:,}" for number in numbers), images))
    if all(state.num_done == state.num_items for state in states):
        return [*table_lines(rows), "everything is done"]
    rows += [("", name, "", "", "", "") for name in to_come]
    return [
        *table_lines(rows),
        f"what {states[-1].name} gives decides how much the steps after it have to do",
    ]


def steps_to_come(states: Sequence[StepState], config: RunConfig) -> list[str]:
    """The steps of the flow that are not among `states` yet."""
    nothing = Sizes(config, dict.fromkeys(config.pools, 0), Shares(image_bytes=1, embedding_dim=1))
    there = {state.name for state in states}
    works = [work for work in forecast(nothing) if not work.within]
    return list(dict.fromkeys(work.name for work in works if work.name not in there))
