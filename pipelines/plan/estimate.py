"""Work times rates, on so many workers: hours, bytes and memory of every step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.engine.runner import StepState
from pipelines.plan.rates import Rate, Spent
from pipelines.plan.work import forecast
from pipelines.stages.forecast import Sizes, StepForecast


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Args:
        num: workers of the kind that was measured here.
        num_given: of the kind of the rates file; 0 where there is none.
        kind, given_kind: in words.
    """

    num: int
    kind: str
    num_given: int = 0
    given_kind: str = ""


@dataclass(frozen=True)
class StepEstimate:
    """What a step will take; None where its rate is not known. Seconds and bytes are of what is to do."""

    work: StepForecast
    num_items: int
    num_done: int | None  # None: a run that is imagined
    spent: Spent | None  # by all workers together
    wall_s: float | None
    read_bytes: float
    written_bytes: float | None
    worker_bytes: float  # memory of one worker
    rate: Rate | None

    @property
    def work_s(self) -> float | None:
        """Seconds of all workers together."""
        return None if self.spent is None else self.spent.wall_s

    @property
    def cpu_s(self) -> float | None:
        """Seconds of all their cores; None where a rate knows nothing of them."""
        return None if self.spent is None or math.isnan(self.spent.cpu_s) else self.spent.cpu_s


def estimate(
    sizes: Sizes,
    rates: Mapping[str, Rate],
    workers: Workers,
    *,
    states: Sequence[StepState] = (),
    base_bytes: float = 0.0,
) -> list[StepEstimate]:
    """What every step of a run will take.

    Args:
        sizes: of the run.
        rates: by step.
        workers: who does it.
        states: how far each step is; empty for a run that is imagined.
        base_bytes: memory of a worker that has done nothing yet.
    """
    state_of: dict[str, list[StepState]] = {}
    for one in states:
        state_of.setdefault(one.name, []).append(one)
    found = []
    for work in forecast(sizes):
        queue = state_of.get(work.name, [])
        state: StepState | None = queue.pop(0) if queue else None
        if work.within and (outer := state_of.get(work.within)):
            is_done = outer[0].num_done == outer[0].num_items
            state = StepState(work.name, work.stage, work.num_items, work.num_items * is_done, 0)
        if state is None and states:  # nobody can count yet what it has done; its part of the flow is ahead
            state = StepState(work.name, work.stage, work.num_items, 0, 0)
        found.append(_step(sizes, work, rates.get(work.key), workers, state=state, base_bytes=base_bytes))
    return found


def _step(
    sizes: Sizes,
    work: StepForecast,
    rate: Rate | None,
    workers: Workers,
    *,
    state: StepState | None,
    base_bytes: float,
) -> StepEstimate:
    items = work.num_items if state is None else state.num_items
    done = None if state is None else state.num_done
    if work.in_steps and items == 1:  # it is one item to the runner, and many once it is begun
        items, done = work.num_items, done and work.num_items
    share = 1.0 if done is None or not items else (items - done) / items
    spent, wall_s, written = None, None, None
    if rate is not None:
        to_do = math.ceil(items * share)
        at_once = max(1, min(workers.num_given if rate.is_given else workers.num, to_do))
        one = _of_unit(sizes, rate) * (share * work.units / max(to_do, 1)) + rate.item
        spent = one * to_do + rate.start * min(at_once, to_do)
        # The last wave is as long as a full one: an item is not shared.
        wall_s = math.ceil(to_do / at_once) * one.wall_s + (rate.start.wall_s if to_do else 0.0)
        by_unit = work.units * rate.written_bytes + sizes.total * rate.image_bytes
        written = share * by_unit + to_do * rate.item_bytes
    return StepEstimate(
        work, items, done, spent, wall_s, share * work.read_bytes, written, base_bytes + work.held_bytes, rate
    )


def _of_unit(sizes: Sizes, rate: Rate) -> Spent:
    """For a unit, over pools whose images differ as they do."""
    if not rate.by_pool or not sizes.total:
        return rate.unit
    every = (rate.by_pool.get(pool, rate.unit) * (n / sizes.total) for pool, n in sizes.images.items())
    return sum(every, Spent())
