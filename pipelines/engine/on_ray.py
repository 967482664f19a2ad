"""The Ray executor: plain tasks, which share warm processes; Ray Data's actors where a GPU holds a model.

Ray is the coordinator alone: a worker reads its inputs, publishes its outputs, and returns a receipt.
Before this module is imported, `prepare_ray_environment` must have been called.
"""

import contextlib
import logging
import threading
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import ray
import ray.exceptions
from ray.util.annotations import RayDeprecationWarning
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from curation import storage
from curation.errors import ConfigError, ExecutorError, LvdError
from pipelines.engine.alone import do_alone
from pipelines.engine.last_words import is_lost
from pipelines.engine.ray_watch import RayCluster, Watch, end_marked, leave_at_exit, marking
from pipelines.engine.row_notes import SCRATCH
from pipelines.engine.runner import MAX_ATTEMPTS, Death, Outcomes
from pipelines.engine.step import AnyItem, AnyStep, Receipt, Work, perform

# Parts of one Ray Data execution: bounds what the driver and the scheduler hold at a time.
WAVE_PARTS = 4_096
CONNECT_TIMEOUT_S = 60
END_S = 5.0  # of Ray's processes, once they have been asked to
KEPT_S = 30.0  # that a worker with nothing to do keeps a model
MIN_SHARED = 64  # entries of a tuple that is worth a place in the object store
START_ATTEMPTS = 3  # of a cluster of our own, on a machine that is busy with something else


class RayExecutor:
    """Does items on a Ray cluster; starts a local one where no address is given.

    Args:
        address: of a running cluster (`auto`, `ray://…`, `HOST:PORT`), or None for one of our own.
        workers: at most so many at once; None for as many as the cluster's cores carry.
        num_cpus: logical cores of a cluster of our own; None for the machine's.
        threads: of a worker; a cluster of our own offers at least so many cores.
        say: tells people why this process ends, should the cluster be lost while nobody waits for it.
    """

    def __init__(
        self,
        address: str | None,
        *,
        workers: int | None,
        num_cpus: int | None = None,
        threads: int = 1,
        say: Callable[[str], None] = print,
    ) -> None:
        self._workers = workers
        self._ours = not ray.is_initialized()
        mark = None
        if self._ours:
            with marking() as mark, _ended_if_it_fails(mark):
                _connect(address, max(num_cpus, threads) if num_cpus else None, mark=mark)
                if address is None and max(_of_nodes("CPU")) < threads:
                    # Only Ray itself knows how many cores a container really has, and tells once it runs.
                    _end(mark)
                    _connect(address, threads, mark=mark)
        self._watch = Watch(_place(address, mark if address is None else None), say)

    def close(self) -> None:
        """Leave the cluster; end it when it is ours."""
        self._watch.close()
        if self._watch.lost is not None:
            leave_at_exit()
        elif self._ours:
            _end(self._watch.cluster.mark)

    def run(self, step: AnyStep, items: Sequence[AnyItem], run_dir: str) -> Outcomes:
        with _cluster_errors():
            yield from self._watch.drawn(self._run(step, items, run_dir))

    def _run(self, step: AnyStep, items: Sequence[AnyItem], run_dir: str) -> Outcomes:
        check_run_dir_is_shared(run_dir)
        for start in range(0, len(items), WAVE_PARTS):
            wave = items[start : start + WAVE_PARTS]
            work = self._on_actors if step.loads_model and step.num_gpus else self._tasks
            for position, outcome in work(step, wave, run_dir):
                yield start + position, outcome

    def _on_actors(self, step: AnyStep, wave: Sequence[AnyItem], run_dir: str) -> Outcomes:
        """An actor keeps its GPU for as long as the model is in it, and gives all of it back as it ends."""
        import ray.data  # seconds, which are for those who have GPUs

        context = ray.data.DataContext.get_current()
        context.max_errored_blocks = -1  # a part that is lost is found missing below, and rescued
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        rows = [{"position": position, "item": _pack(item)} for position, item in enumerate(wave)]
        # Ray's own defaults retry for ever: an image that kills its decoder would never end. There is no
        # other way to say so than these arguments, which Ray means to replace in 2.64.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RayDeprecationWarning)
            outcomes = ray.data.from_items(rows, override_num_blocks=len(wave)).map_batches(
                _PartWorker,
                fn_constructor_args=(step, run_dir),
                batch_size=1,
                num_cpus=step.threads,
                num_gpus=step.num_gpus,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self._most_workers(step, len(wave))),
                max_restarts=-1,
                max_task_retries=MAX_ATTEMPTS - 1,
            )
        missing = set(range(len(wave)))
        for row in outcomes.iter_rows():
            missing.discard(int(row["position"]))
            yield int(row["position"]), _unpack(row["outcome"])
        for position in sorted(missing):
            yield position, Death(f"its worker died {MAX_ATTEMPTS} times", blames_item=True)

    def _tasks(self, step: AnyStep, wave: Sequence[AnyItem], run_dir: str) -> Outcomes:
        remote = ray.remote(_do_whole).options(
            num_cpus=step.threads, num_gpus=step.num_gpus, max_retries=MAX_ATTEMPTS - 1
        )
        # What all items name, such as every part of a run, goes to each node once.
        shared = {key: ray.put(value) for key, value in _shared(wave).items()}
        wave = [_with_fields(item, dict.fromkeys(shared, ())) for item in wave]
        waiting = list(enumerate(wave))[::-1]
        wanted_by = uuid.uuid4().hex  # for as long as a worker keeps what it has loaded
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < self._most_workers(step, len(wave)):
                position, item = waiting.pop()
                running[remote.remote(step, item, run_dir, shared, wanted_by)] = position
            for ref in ray.wait(list(running), num_returns=1)[0]:
                yield running.pop(ref), _result(ref)

    def run_alone(
        self, step: AnyStep, item: AnyItem, run_dir: str, *, condemned: Mapping[int, str], publish: bool
    ) -> Receipt | Death:
        work = partial(perform, step=step, item=item, run_dir=run_dir, condemned=condemned, publish=publish)
        remote = ray.remote(_do_alone).options(num_cpus=step.threads, num_gpus=step.num_gpus, max_retries=0)

        def ask() -> Iterator[Receipt | Death]:
            try:
                yield _unpack(ray.get(remote.remote(_pack((work, step)))))
            # The work runs in a process that the worker starts: no item is to blame for the worker's end.
            except (*_LOSSES, ray.exceptions.WorkerCrashedError) as error:
                yield Death(type(error).__name__, blames_item=False)

        with _cluster_errors():
            [outcome] = self._watch.drawn(ask())
        return outcome

    def _most_workers(self, step: AnyStep, num_items: int) -> int:
        cores, gpus = _of_nodes("CPU"), _of_nodes("GPU")
        if max(cores) < step.threads:
            raise ConfigError(
                "No worker fits a node of the cluster",
                got=f"{max(cores)} cores on the largest node",
                expected=f"at least {step.threads} (executor.threads)",
            )
        fit = [node // step.threads for node in cores]
        if step.num_gpus:
            fit = [min(num, node // step.num_gpus) for num, node in zip(fit, gpus, strict=True)]
        fitting = sum(fit)
        if not fitting:
            raise ConfigError(
                f"The step `{step.name}` wants a GPU, and no node of the cluster offers one",
                got=f"nodes with {', '.join(map(str, gpus))} GPUs",
                expected="at least one node with a GPU",
                remedy="Start the nodes' Ray with their GPUs, or set the step's device to cpu",
            )
        return max(1, min(self._workers or fitting, fitting, num_items))


def _place(address: str | None, mark: str | None) -> RayCluster:
    if address and address.startswith(
        "ray://"
    ):  # a client's own machine may not reach the head's other ports
        return RayCluster(None, None)
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    [node] = (node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return RayCluster((host.strip("[]"), int(port)), node["RayletSocketName"], mark)


@contextlib.contextmanager
def _cluster_errors() -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayError as error:
        raise is_lost(repr(error)) from error


def _of_nodes(resource: str) -> list[int]:
    """How many cores (CPU) or GPUs (GPU) each living node offers."""
    return [int(node["Resources"].get(resource, 0)) for node in ray.nodes() if node["Alive"]] or [0]


class _PartWorker:
    """An actor of Ray Data's pool: loads the work once, then does part after part."""

    def __init__(self, step: AnyStep, run_dir: str) -> None:
        self._step = step
        self._run_dir = run_dir

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        item = ray.cloudpickle.loads(batch["item"][0])
        return {"position": batch["position"], "outcome": [_do(self._step, item, self._run_dir, "actor")]}


def _shared(wave: Sequence[AnyItem]) -> dict[str, object]:
    """Long tuples of the tasks that are one object in all of a wave's items."""
    first, *others = (item.task for item in wave)
    return {
        field.name: value
        for field in fields(first)
        if others and isinstance(value := getattr(first, field.name), tuple) and len(value) >= MIN_SHARED
        if all(getattr(task, field.name, None) is value for task in others)
    }


def _with_fields(item: AnyItem, values: Mapping[str, Any]) -> AnyItem:
    return replace(item, task=replace(item.task, **values))


def _do_whole(
    step: AnyStep, item: AnyItem, run_dir: str, shared: Mapping[str, ray.ObjectRef[Any]], wanted_by: str
) -> bytes:
    whole = _with_fields(item, {name: ray.get(ref) for name, ref in shared.items()})
    while _FORGETTING:  # an item may take longer than a worker waits for one
        _FORGETTING.pop().cancel()
    try:
        return _do(step, whole, run_dir, wanted_by)
    finally:
        _forget_later()


def _do(step: AnyStep, item: AnyItem, run_dir: str, wanted_by: str) -> bytes:
    try:
        return _pack(perform(_loaded(step, wanted_by), step, item, run_dir=run_dir))
    except Exception as error:  # to Ray an exception is a reason to retry: carry it home as a value
        return _pack(_portable(error))


# In a worker: the work that it has done last, whose model the next item wants, and what is to remove it.
_LOADED: dict[str, Work[Any]] = {}
_FORGETTING: list[threading.Timer] = []


def _loaded(step: AnyStep, wanted_by: str) -> Work[Any]:
    if (kept := _LOADED.get(wanted_by)) is not None:
        return kept
    _LOADED.clear()
    work = step.work()
    if step.loads_model:
        _LOADED[wanted_by] = work
    return work


def _forget_later() -> None:
    """Hold no model in memory for a step that is over: its next item would have come by then."""
    if _LOADED:
        timer = threading.Timer(KEPT_S, _LOADED.clear)
        timer.daemon = True
        timer.start()
        _FORGETTING.append(timer)


def _do_alone(packed: bytes) -> bytes:
    try:
        return _pack(do_alone(packed))
    except Exception as error:
        return _pack(_portable(error))


def _portable(error: Exception) -> LvdError:
    if isinstance(error, LvdError):
        return error
    return ExecutorError(f"A worker failed: {error!r}", got="".join(traceback.format_exception(error)))


def _pack(outcome: object) -> bytes:
    packed: bytes = ray.cloudpickle.dumps(outcome)
    return packed


def _unpack(packed: bytes) -> Receipt:
    outcome: Receipt | LvdError = ray.cloudpickle.loads(packed)
    if isinstance(outcome, LvdError):
        raise outcome
    return outcome


# Of what a worker holds, for a reason that lies outside of it.
_LOSSES = (
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)


def _result(ref: Any) -> Receipt | Death:
    try:
        return _unpack(ray.get(ref))
    except ray.exceptions.WorkerCrashedError as error:
        return Death(type(error).__name__, blames_item=True)
    except _LOSSES as error:
        return Death(type(error).__name__, blames_item=False)


@contextlib.contextmanager
def _ended_if_it_fails(mark: str) -> Iterator[None]:
    try:
        yield
    except BaseException:  # Ctrl-C as well, which leaves a Ray that is half there
        _end(mark)
        raise


def _end(mark: str | None) -> None:
    """Leave the cluster, and see that no process of one of our own stays: after a failed start some do."""
    ray.shutdown()
    end_marked(mark, wait_s=END_S)


def _connect(address: str | None, num_cpus: int | None, *, mark: str | None = None) -> None:
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it prints deaths that are rescued
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(
                # None would join whatever RAY_ADDRESS or a `ray start` on this machine has to offer.
                address=address or "local",
                num_cpus=num_cpus if address is None else None,
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
            return
        except Exception as error:  # a bare one where a node of our own takes more than Ray's 30 s to start
            _end(mark)
            if address is None and type(error) is Exception and attempt < START_ATTEMPTS:
                continue
            raise ExecutorError(
                "Ray cannot be reached" if address else "Ray cannot be started",
                got=error,
                expected=f"a Ray cluster at {address}" if address else "a local Ray",
                remedy="Check --address, or run without Ray: --executor local",
            ) from error


def check_run_dir_is_shared(run_dir: str) -> None:
    """See that every node of the cluster sees the run directory.

    Raises:
        ConfigError: naming the nodes that do not.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2 or not storage.is_local(run_dir):
        return
    probe = storage.join(run_dir, SCRATCH, f"probe-{uuid.uuid4().hex}")
    storage.publish_bytes(probe, b"lvd")
    try:
        look = ray.remote(num_cpus=0)(storage.exists)
        asked = {
            node["NodeID"]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(probe)
            for node in nodes
        }
        hosts = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
        blind = []
        for node_id, ref in asked.items():
            with contextlib.suppress(ray.exceptions.RayError):  # a node that dies meanwhile is Ray's business
                if not ray.get(ref, timeout=CONNECT_TIMEOUT_S):
                    blind.append(f"{hosts[node_id]} (node {node_id[:12]})")
    finally:
        storage.remove_file(probe)
    if blind:
        raise ConfigError(
            f"Some nodes of the cluster cannot see the run directory {run_dir}",
            got=", ".join(blind),
            expected="a folder that all nodes share",
            remedy="Put run_dir on a shared file system",
        )
