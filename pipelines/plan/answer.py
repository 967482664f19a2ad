"""`lvd plan`: how far each step is, and what is left of it will take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from curation.errors import ConfigError, LvdError
from pipelines.config.paths import absolute
from pipelines.config.run_config import RunConfig
from pipelines.config.run_dir import read_run_config
from pipelines.engine.progress import Progress
from pipelines.engine.runner import StepState
from pipelines.lvd import Curated, curate
from pipelines.plan.dry_run import DryRun, dry_run
from pipelines.plan.estimate import StepEstimate, Workers, estimate
from pipelines.plan.how_far import steps_to_come
from pipelines.plan.known import KnownRun, known_run
from pipelines.plan.probe import Probed, held_bytes, probe, worker_bytes
from pipelines.plan.rates import (
    RatesFile,
    given_rates,
    is_small,
    rates_of,
    read_rates,
    with_drawn,
)
from pipelines.plan.work import forecast
from pipelines.stages.forecast import Sizes


@dataclass(frozen=True)
class PlanQuestion:
    """What the plan is for.

    Args:
        images: images by pool, or, under the empty name, of all pools together; empty: those of the sources.
        like: a run directory whose receipts give the rates.
        rates: a file of given rates.
        workers: of this kind of machine; None: what the config says or this machine carries.
        nodes, gpus: machines, and GPUs of each, for the rates of a file.
        measure: whether this machine may be measured where no receipts are.
    """

    images: Mapping[str, int] | None = None
    like: str | None = None
    rates: str | None = None
    workers: int | None = None
    nodes: int = 1
    gpus: int = 0
    measure: bool = True


@dataclass(frozen=True)
class Plan:
    """The answer; `steps` is empty where no sizes are known."""

    states: Sequence[StepState]
    to_come: Sequence[str]  # steps that nobody can count yet
    steps: Sequence[StepEstimate]
    sizes: Sizes | None
    workers: Workers
    file: RatesFile | None
    notes: Sequence[str]

    @property
    def wall_s(self) -> float:
        """Of all steps whose rates are known, one after the other."""
        return sum(step.wall_s or 0.0 for step in self.steps)


def make_plan(config: RunConfig, asked: PlanQuestion) -> Plan:
    """Look how far a run is, measure, and estimate; nothing is written to the run directory.

    Raises:
        ConfigError: what is asked cannot be meant.
        LvdError: as the stages say.
    """
    file = read_rates(asked.rates) if asked.rates is not None else None
    images = _asked_images(config, asked, file)
    # An imagined run has its sources and weights elsewhere, or nowhere yet.
    dry = dry_run(absolute(config), curate) if images is None else None
    measured, notes = _measure(config, asked, dry, may_fail=file is not None and images is not None)
    rates = dict(measured.rates) if measured else {}
    if file is not None:
        rates |= given_rates(file, config, str(asked.rates))
    states = dry.runner.states if dry else []
    to_come, workers = steps_to_come(states, config), _workers(config, asked, file)
    sizes = _sizes(config, images, measured, file)
    if sizes is None:
        return Plan(states, to_come, [], None, workers, file, notes)
    base_bytes = measured.worker_bytes if measured else held_bytes()
    steps = estimate(sizes, rates, workers, states=states, base_bytes=base_bytes)
    return Plan(states, to_come, steps, sizes, workers, file, notes)


def _sizes(
    config: RunConfig, images: Mapping[str, int] | None, measured: Probed | None, file: RatesFile | None
) -> Sizes | None:
    """The sizes of the run that is planned; None where nobody knows what is left on the way."""
    shares = measured.sizes.shares if measured else None
    if file is not None and file.shares is not None:
        shares = file.shares
    if shares is None:
        return None
    if images is None and measured and measured.sizes.config is config:  # its parts are known, too
        return replace(measured.sizes, shares=shares)
    return Sizes(config, _scaled(images, config, measured.sizes.images if measured else {}), shares)


def images_of(texts: Sequence[str]) -> dict[str, int] | None:
    """Images by pool out of `[POOL=]N`; a number alone stands under the empty name.

    Raises:
        ConfigError: something else than a number.
    """
    found = {}
    for text in texts:
        pool, _, number = text.rpartition("=")
        try:
            found[pool] = int(float(number))
        except (ValueError, OverflowError) as error:
            raise ConfigError(
                "--images is not understood", got=text, expected="a number such as 1.2e9, or POOL=NUMBER"
            ) from error
        if found[pool] < 1:
            raise ConfigError("--images of nothing", got=text, expected="at least 1")
    return found or None


def _measure(
    config: RunConfig, asked: PlanQuestion, dry: DryRun[Curated] | None, *, may_fail: bool
) -> tuple[Probed | None, list[str]]:
    """Rates and shares: of a run like it, of this run's own receipts, or of a sample of its sources."""
    if asked.like is not None:
        like = read_run_config(asked.like)
        known = known_run(like, dry_run(absolute(like), curate))
        if known is None:
            raise ConfigError(
                f"{asked.like} tells no rates",
                got="no described images that this version of lvd finds again",
                remedy="Run its config, with `--until describe` at least, or plan without --like",
            )
        return _of_run(known, config, asked)
    if dry is not None and (known := known_run(config, dry)) is not None:
        return _of_run(known, config, asked)
    if not asked.measure:
        return None, []
    progress = Progress()
    progress.say("measuring each step on a small sample of the sources (--no-probe leaves that out) …")
    try:
        sampled = probe(absolute(config), progress=progress)
    except (LvdError, OSError) as error:
        if not may_fail:
            raise
        return None, [
            f"nothing was measured here, so steps that the file does not rate have no hours: {error}"
        ]
    notes = [] if sampled.counted else ["the sources are larger: their counting was cut short"]
    return replace(sampled, sizes=replace(sampled.sizes, config=config)), notes


def _base(config: RunConfig, asked: PlanQuestion) -> tuple[float, list[str]]:
    """Memory of a worker beside its work, which no receipt tells, and a word where models are not in it."""
    if not asked.measure:
        return held_bytes(), ["memory is without that of the models, which were not loaded"]
    try:
        return worker_bytes(absolute(config)), []
    except (LvdError, OSError) as error:
        return held_bytes(), [f"memory is without that of the models, which cannot be loaded here: {error}"]


def _of_run(known: KnownRun, config: RunConfig, asked: PlanQuestion) -> tuple[Probed, list[str]]:
    """What a run's receipts tell; of another size, what its smallest joins cannot tell is measured here."""
    source = "this run's receipts" if asked.like is None else f"receipts of {asked.like}"
    rates = rates_of(known.sizes, known.receipts, source=source)
    small = {work.key for work in forecast(known.sizes) if is_small(work)}
    if small and asked.measure and asked.like is not None:
        from pipelines.plan.drawn_rates import drawn_rates  # torch, for joins that are measured

        drawn = drawn_rates(known.sizes.config, known.parts[-1])
        rates = with_drawn(rates, drawn, known.sizes)
    else:
        few = small & rates.keys()
        rates |= {name: replace(rates[name], source=f"{rates[name].source} (few)") for name in few}
    base_bytes, words = _base(config, asked)
    return Probed(rates, known.sizes, True, base_bytes), words


def _asked_images(config: RunConfig, asked: PlanQuestion, file: RatesFile | None) -> dict[str, int] | None:
    """Images by pool, as far as they are told; None where the sources tell."""
    if not asked.images:
        return None
    images = {name: n for name, n in file.images.items() if name in config.pools} if file else {}
    images |= dict(asked.images)
    unknown = set(images) - set(config.pools) - {""}
    if unknown:
        raise ConfigError(
            f"--images names a pool that is not there: {', '.join(sorted(unknown))}",
            expected=f"one of {', '.join(config.pools)}, or a number alone",
        )
    return images


def _scaled(
    images: Mapping[str, int] | None, config: RunConfig, counted: Mapping[str, int]
) -> dict[str, int]:
    """Images of every pool, asked for or counted. A number alone is for uncurated pools, as they are now."""
    images = images or {}
    found = {name: images.get(name, counted.get(name, 0)) for name in config.pools}
    if "" in images:
        open_pools = [n for n, pool in config.pools.items() if pool.role == "uncurated" and n not in images]
        open_pools = open_pools or [n for n in config.pools if n not in images]
        weights = [counted.get(name, 0) for name in open_pools]
        if not sum(weights):
            weights = [1] * len(open_pools)
        for name, weight in zip(open_pools, weights, strict=True):
            found[name] = round(images[""] * weight / sum(weights))
    return found


def _workers(config: RunConfig, asked: PlanQuestion, file: RatesFile | None) -> Workers:
    executor = config.executor
    carried = 1 if executor.chosen == "local" else executor.workers or executor.num_workers
    num = asked.workers or carried * asked.nodes
    kind = f"of {executor.threads} cores of this machine"
    if file is None:
        return Workers(num, kind)
    return Workers(num, kind, max(1, asked.nodes * asked.gpus), file.kind)
