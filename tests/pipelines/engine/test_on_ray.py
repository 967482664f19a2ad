"""The Ray executor: the same receipts as the local one, and deaths that end in bounded time."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from curation.errors import ConfigError, ExecutorError
from pipelines.engine import progress as progress_module
from pipelines.engine.around_ray import prepare_ray_environment
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.row_notes import SCRATCH
from pipelines.engine.runner import CONDEMNED_REASON, MAX_ATTEMPTS, Death, Runner
from pipelines.engine.step import AnyStep, Attempt, Item, NoSettings, Step, Work

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")]

NUM_ROWS = 2


@pytest.fixture(scope="module")
def on_ray() -> Iterator[Any]:
    """The executor on a Ray of its own, with two cores and what it takes for GPUs; one for all tests here."""
    prepare_ray_environment()
    from pipelines.engine.on_ray import RayExecutor, ray

    # A worker cannot import a test module by its name.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", partial(ray.init, num_gpus=2))
        executor = RayExecutor(None, workers=2, num_cpus=2)
    yield executor
    executor.close()


@dataclass(frozen=True)
class Named:
    name: int
    shared: tuple[int, ...] = ()
    own: tuple[int, ...] = ()


@dataclass(frozen=True)
class Deaths:
    tally: str
    how: Literal["abort", "raise"]


def load_plain(_settings: NoSettings) -> Work[Named]:
    def work(attempt: Attempt) -> dict[str, Any]:
        (attempt.out / "out.txt").write_text(str(attempt.task.name))
        return {"num_rows": NUM_ROWS, "name": attempt.task.name}

    return work


def load_crasher(deaths: Deaths) -> Work[Named]:
    """Row 1 of item 2 ends its process; every attempt leaves a file in `tally`."""

    def work(attempt: Attempt) -> dict[str, Any]:
        if attempt.task.name == 2 and 1 not in attempt.condemned:
            Path(deaths.tally, f"{time.monotonic_ns()}-{os.getpid()}").touch()
            if deaths.how == "raise":
                raise KeyError("no such thing as row 1")
            os.abort()
        (attempt.out / "out.txt").write_text(f"{attempt.task.name} {dict(attempt.condemned)}")
        return {"num_rows": NUM_ROWS}

    return work


def load_refusal(_settings: NoSettings) -> Work[Named]:
    raise ConfigError("No such model", got="clip", expected="gist")


def load_killed(number: int) -> Work[Named]:
    def work(_attempt: Attempt) -> dict[str, Any]:
        os.kill(os.getpid(), number)
        return {}

    return work


def make_step(
    load: Callable[[Any], Work[Named]],
    *,
    settings: object = NoSettings(),
    loads_model: bool = False,
    num_gpus: int = 0,
    name: str = "touch",
) -> AnyStep:
    return Step(name, 1, settings, load, "describe", 1, loads_model, num_gpus)


def items(num: int) -> list[Item[Named]]:
    return [Item(Named(i), NUM_ROWS) for i in range(num)]


# Whether a model is loaded, and on how many GPUs: on one it is an actor that does the work.
KINDS = [(True, 1), (True, 0), (False, 0)]


@pytest.mark.parametrize(("loads_model", "num_gpus"), KINDS)
def test_the_same_receipts_as_local(on_ray: Any, tmp_path: Path, loads_model: bool, num_gpus: int) -> None:
    step = make_step(load_plain, loads_model=loads_model, num_gpus=num_gpus)
    found = [
        Runner(str(tmp_path / name), executor, Progress(quiet=True)).run(step, items(5))
        for name, executor in (("local", LocalExecutor()), ("ray", on_ray))
    ]
    local, ray = ([(r.identity, r.digest, r.files, r.facts) for r in receipts] for receipts in found)
    assert local == ray


def load_slow(_settings: NoSettings) -> Work[Named]:
    def work(attempt: Attempt) -> dict[str, Any]:
        for row in range(NUM_ROWS):
            attempt.tell(row)
            time.sleep(2.2)
        return {"num_rows": NUM_ROWS}

    return work


@pytest.mark.parametrize(("loads_model", "num_gpus"), [KINDS[0], KINDS[2]])
def test_progress_moves_within_an_item(
    *,
    on_ray: Any,
    tmp_path: Path,
    loads_model: bool,
    num_gpus: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress_module, "LOOK_EVERY_S", 0.2)
    monkeypatch.setattr(progress_module, "PLAIN_LINE_EVERY_S", 0.2)
    step = make_step(load_slow, loads_model=loads_model, num_gpus=num_gpus)
    Runner(str(tmp_path), on_ray, Progress()).run(step, items(2))
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith(("touch: 0/2, 1 of 4 images", "touch: 0/2, 2 of 4 images")) for line in lines)
    assert list((tmp_path / SCRATCH).iterdir()) == []


def load_sum(_settings: NoSettings) -> Work[Named]:
    def work(attempt: Attempt) -> dict[str, Any]:
        return {"sum": sum(attempt.task.shared) + attempt.task.name}

    return work


def test_what_all_items_name_is_sent_once(
    on_ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.engine.on_ray import ray

    sent: list[Any] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: sent.append(value) or put(value))
    shared = tuple(range(100))
    ours = [Item(Named(i, shared, (i,))) for i in range(4)]
    runner = Runner(str(tmp_path / "run"), on_ray, Progress(quiet=True))
    receipts = runner.run(make_step(load_sum, name="sum"), ours)
    assert [receipt.facts["sum"] for receipt in receipts] == [4950 + i for i in range(4)]
    assert sent == [shared]


# Nine processes start, one after the other, and each brings torch along.
@pytest.mark.accept
@pytest.mark.parametrize(("loads_model", "num_gpus"), KINDS[:2])
def test_a_row_that_kills_costs_itself_alone(
    on_ray: Any, tmp_path: Path, loads_model: bool, num_gpus: int
) -> None:
    tally = tmp_path / "tally"
    tally.mkdir()
    step = make_step(
        load_crasher, loads_model=loads_model, num_gpus=num_gpus, settings=Deaths(str(tally), "abort")
    )
    run_dir = tmp_path / "run"
    receipts = Runner(str(run_dir), on_ray, Progress(quiet=True)).run(step, items(4))
    texts = [(run_dir / receipt.folder / "out.txt").read_text() for receipt in receipts]
    assert texts == ["0 {}", "1 {}", f"2 { {1: CONDEMNED_REASON} }", "3 {}"]
    # Bounded: with its neighbours; alone; its half, and the row once more.
    assert len(list(tally.iterdir())) <= MAX_ATTEMPTS + 1 + 2


@pytest.mark.parametrize(("loads_model", "num_gpus"), [KINDS[0], KINDS[2]])
def test_an_exception_is_raised_here_and_is_not_retried(
    on_ray: Any, tmp_path: Path, loads_model: bool, num_gpus: int
) -> None:
    tally = tmp_path / "tally"
    tally.mkdir()
    step = make_step(
        load_crasher, loads_model=loads_model, num_gpus=num_gpus, settings=Deaths(str(tally), "raise")
    )
    with pytest.raises(ExecutorError, match="no such thing as row 1"):
        Runner(str(tmp_path / "run"), on_ray, Progress(quiet=True)).run(step, items(3))
    assert len(list(tally.iterdir())) == 1


def test_what_load_refuses_is_told_as_it_was_said(on_ray: Any, tmp_path: Path) -> None:
    step = make_step(load_refusal, loads_model=True)
    with pytest.raises(ConfigError, match=r"No such model\. Got: clip\. Expected: gist\."):
        Runner(str(tmp_path), on_ray, Progress(quiet=True)).run(step, items(2))


def load_counted(tally: str) -> Work[Named]:
    Path(tally, f"{time.monotonic_ns()}-{os.getpid()}").touch()
    return lambda _attempt: {"pid": os.getpid()}


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_a_worker_keeps_its_model(on_ray: Any, tmp_path: Path, num_gpus: int) -> None:
    tally = tmp_path / "tally"
    tally.mkdir()
    step = make_step(load_counted, settings=str(tally), loads_model=True, num_gpus=num_gpus)
    receipts = Runner(str(tmp_path / "run"), on_ray, Progress(quiet=True)).run(step, items(8))
    assert len(list(tally.iterdir())) == len({receipt.facts["pid"] for receipt in receipts}) <= 2


def load_modules(wanted: str) -> Work[Named]:
    def work(_attempt: Attempt) -> dict[str, Any]:
        if wanted:
            __import__(wanted)
        there = {name: name in sys.modules for name in ("torch", "faiss")}
        threads = sys.modules["torch"].get_num_threads() if there["torch"] else None
        return {**there, "threads": threads}

    return work


def test_a_light_step_brings_no_torch_and_torch_that_comes_later_has_the_threads(
    on_ray: Any, tmp_path: Path
) -> None:
    [item] = items(1)
    found = [
        on_ray.run_alone(
            make_step(load_modules, settings=wanted), item, str(tmp_path), condemned={}, publish=False
        )
        for wanted in ("", "torch")
    ]
    assert [receipt.facts for receipt in found] == [
        {"torch": False, "faiss": False, "threads": None},
        {"torch": True, "faiss": False, "threads": 1},
    ]


def test_a_model_is_forgotten_once_no_item_comes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipelines.engine import on_ray as module

    (tmp_path / "tally").mkdir()
    step = make_step(load_counted, settings=str(tmp_path / "tally"), loads_model=True)
    for kept_s, num_loaded in ((30.0, 1), (0.05, 2)):
        monkeypatch.setattr(module, "KEPT_S", kept_s)
        for item in items(2):
            module._do_whole(step, item, str(tmp_path / f"run-{kept_s}"), {}, "a step")
            time.sleep(0.3)
        assert len(list((tmp_path / "tally").iterdir())) == num_loaded
    assert module._LOADED == {}


def load_counted_and_slow(tally: str) -> Work[Named]:
    load_counted(tally)
    return lambda _attempt: time.sleep(0.5) or {}


def test_a_model_is_kept_for_items_that_take_longer_than_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pipelines.engine import on_ray as module

    (tmp_path / "tally").mkdir()
    step = make_step(load_counted_and_slow, settings=str(tmp_path / "tally"), loads_model=True)
    monkeypatch.setattr(module, "KEPT_S", 0.2)
    for item in items(3):
        module._do_whole(step, item, str(tmp_path / "run"), {}, "a slow step")
    assert len(list((tmp_path / "tally").iterdir())) == 1


def test_every_probe_gets_a_fresh_process(on_ray: Any, tmp_path: Path) -> None:
    def load(_settings: NoSettings) -> Work[Named]:
        return lambda _attempt: {"pid": os.getpid()}

    [item] = items(1)
    outcomes = [
        on_ray.run_alone(make_step(load), item, str(tmp_path), condemned={}, publish=False) for _ in range(2)
    ]
    assert outcomes[0].facts != outcomes[1].facts


@pytest.mark.parametrize(("number", "blames"), [(signal.SIGKILL, False), (signal.SIGSEGV, True)])
def test_what_the_kernel_kills_is_nobodys_fault(
    on_ray: Any, tmp_path: Path, number: int, blames: bool
) -> None:
    """The kernel ends with SIGKILL what finds no memory; the local executor knows the same rule."""
    [item] = items(1)
    step = make_step(load_killed, settings=int(number))
    outcomes = [
        executor.run_alone(step, item, str(tmp_path), condemned={}, publish=False)
        for executor in (on_ray, LocalExecutor())
    ]
    assert outcomes == [Death(f"exit code {-number}", blames_item=blames)] * 2


def test_memory_that_runs_out_each_time_condemns_nobody(on_ray: Any, tmp_path: Path) -> None:
    step = make_step(load_killed, name="greedy", settings=int(signal.SIGKILL))
    with pytest.raises(ExecutorError, match=r"exit code -9.*Give a worker more memory"):
        Runner(str(tmp_path), on_ray, Progress(quiet=True)).run(step, items(1))
    assert not (tmp_path / "steps").exists()


def test_deaths_of_a_worker_that_only_waits(
    on_ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.engine import on_ray as module

    errors = module.ray.exceptions
    [item] = items(1)
    for error, blames in (
        (errors.OutOfMemoryError("memory"), False),
        (errors.NodeDiedError("gone"), False),
        (errors.ObjectLostError("0" * 56, None, "lost"), False),
        (errors.WorkerCrashedError(), True),
    ):

        def fail(_ref: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(module.ray, "get", fail)
        found = module._result(None)
        assert isinstance(found, Death)
        assert found.blames_item is blames
        alone = on_ray.run_alone(make_step(load_plain), item, str(tmp_path), condemned={}, publish=False)
        assert alone == Death(type(error).__name__, blames_item=False)


def wide(threads: int) -> AnyStep:
    return Step("wide", 1, NoSettings(), load_plain, "describe", threads=threads)


def test_a_worker_that_fits_nowhere_is_told(on_ray: Any, tmp_path: Path) -> None:
    step = wide(64)
    with pytest.raises(ConfigError, match=r"2 cores .*64 \(executor\.threads\)"):
        Runner(str(tmp_path), on_ray, Progress(quiet=True)).run(step, items(1))


def alive(cores: int, name: str = "a") -> dict[str, Any]:
    return {"Alive": True, "NodeID": name, "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": cores}}


def test_a_worker_must_fit_one_node_and_not_their_sum(on_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.engine import on_ray as module

    monkeypatch.setattr(on_ray, "_workers", None)
    monkeypatch.setattr(module.ray, "nodes", lambda: [alive(3), alive(3), alive(1)])
    assert on_ray._most_workers(wide(2), 99) == 2
    with pytest.raises(ConfigError, match="3 cores on the largest node"):
        on_ray._most_workers(wide(4), 99)


def test_a_step_that_wants_a_gpu_gets_as_many_workers_as_there_are(
    on_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.engine import on_ray as module

    def node(cores: int, gpus: int) -> dict[str, Any]:
        return {"Alive": True, "Resources": {"CPU": cores, "GPU": gpus}}

    monkeypatch.setattr(on_ray, "_workers", None)
    step = Step("embed", 1, NoSettings(), load_plain, "describe", threads=2, num_gpus=1)
    monkeypatch.setattr(module.ray, "nodes", lambda: [node(16, 4), node(4, 8), node(64, 0)])
    assert on_ray._most_workers(step, 99) == 4 + 2
    monkeypatch.setattr(module.ray, "nodes", lambda: [alive(16)])
    with pytest.raises(ConfigError, match=r"`embed` wants a GPU.*nodes with 0 GPUs"):
        on_ray._most_workers(step, 99)


def test_every_raylet_is_asked_even_on_one_host(
    on_ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.engine import on_ray as module

    assert on_ray is not None
    monkeypatch.setattr(module.ray, "nodes", lambda: [alive(1, "a" * 56), alive(1, "b" * 56)])
    monkeypatch.setattr(module, "NodeAffinitySchedulingStrategy", lambda *_, **__: "DEFAULT")
    seen = iter([True, False])
    monkeypatch.setattr(module.ray, "get", lambda *_, **__: next(seen))
    with pytest.raises(ConfigError, match=r"Got: 10\.0\.0\.1 \(node (a{12}|b{12})\)\."):
        module.check_run_dir_is_shared(str(tmp_path))


def test_a_cluster_that_fails_is_a_paragraph(
    on_ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.engine import on_ray as module

    def fail(*_args: object, **_kwargs: object) -> None:
        raise module.ray.exceptions.LocalRayletDiedError

    with monkeypatch.context() as patch:
        patch.setattr(module.ray, "get", fail)
        with pytest.raises(ExecutorError, match="cluster is lost"):
            list(on_ray.run(make_step(load_plain), items(1), str(tmp_path)))
        with pytest.raises(ExecutorError, match="cluster is lost"):
            on_ray.run_alone(make_step(load_plain), items(1)[0], str(tmp_path), condemned={}, publish=False)


def test_the_watch_sees_head_and_node(on_ray: Any) -> None:
    place = on_ray._watch.cluster
    assert place.head is not None
    assert Path(place.node).is_socket()
    assert place.mark is not None
    assert on_ray._watch.look() is None


def test_a_cluster_that_is_gone_is_told_while_ray_waits(on_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.engine.ray_watch import RayCluster, Watch

    done = threading.Event()

    def waits(*_arguments: object) -> Iterator[Any]:
        yield 0, "receipt"
        done.wait(30)

    monkeypatch.setattr(on_ray, "_watch", Watch(RayCluster(("127.0.0.1", 1), None, "nobody"), print))
    monkeypatch.setattr(on_ray, "_run", waits)
    outcomes = on_ray.run(make_step(load_plain), items(1), "nowhere")
    assert next(outcomes) == (0, "receipt")
    with pytest.raises(ExecutorError, match="head does not answer"):
        next(outcomes)
    done.set()


def test_the_same_dataset_as_local(
    *,
    on_ray: Any,
    tmp_path: Path,
    finished: Path,
    configure: Callable[..., Any],
    run_quietly: Callable[..., Any],
    digests: Callable[[Path], dict[str, str]],
) -> None:
    assert on_ray is not None  # the run finds Ray started
    result = run_quietly(configure(tmp_path / "run", "executor.kind=ray", "executor.workers=2"))
    assert result.exit_code == 0
    assert digests(tmp_path / "run") == digests(finished)


def test_a_node_that_is_slow_to_start_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.engine import on_ray as module

    told: list[str] = []

    def init(**settings: Any) -> None:
        told.append(settings["address"])
        if told.count("local") < module.START_ATTEMPTS:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(module.ray, "init", init)
    monkeypatch.setattr(module.ray, "shutdown", lambda: told.append("shutdown"))
    module._connect(None, 2)
    assert told == ["local", "shutdown"] * (module.START_ATTEMPTS - 1) + ["local"]


def test_ray_that_cannot_be_had_is_a_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.engine import on_ray as module

    def init(**_settings: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(module.ray, "init", init)
    monkeypatch.setattr(module.ray, "shutdown", lambda: None)
    with pytest.raises(ExecutorError, match=r"Ray cannot be started.*timed out.*--executor local"):
        module._connect(None, 2)
    with pytest.raises(ExecutorError, match=r"Ray cannot be reached.*a Ray cluster at auto"):
        module._connect("auto", None)
