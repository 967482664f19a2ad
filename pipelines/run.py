"""One run of the pipeline on a run directory: lock, executor, signals, and the result."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from curation import storage
from curation.errors import IntegrityError, LvdError
from curation.local_files import remove_temporaries
from curation.packages import needing
from curation.shard.manifest import Manifest
from pipelines.answers.made import made_of, save_made
from pipelines.config.paths import absolute
from pipelines.config.run_config import ExecutorConfig, RunConfig
from pipelines.config.run_dir import read_manifest, save_config
from pipelines.engine.around_ray import prepare_ray_environment, terminal_kept
from pipelines.engine.heal import item_to_heal, set_aside
from pipelines.engine.lock import lock
from pipelines.engine.progress import Progress
from pipelines.engine.row_notes import SCRATCH
from pipelines.engine.runner import Executor, Runner, StepState, StopHereError
from pipelines.engine.signals import sigterm_held, stop_on_sigterm
from pipelines.engine.step import IN_FLIGHT
from pipelines.lvd import curate
from pipelines.models.preflight import require_needed
from pipelines.stages.shard.dataset import has_report, publish_dataset

EMPTY = 4  # the exit code of a run whose dataset has no image


@dataclass(frozen=True)
class RunResult:
    """What a run came to: the manifest, or None where it stopped at the stage that it was asked to."""

    manifest: Manifest | None
    states: list[StepState]

    @property
    def exit_code(self) -> int:
        """0; 3 when some source could not be read; 4, whatever was read, when the dataset is empty."""
        if self.manifest is None:
            return 0
        if not self.manifest["counts"]["dataset"]:
            return EMPTY
        return 0 if self.manifest["complete"] else 3


def run(
    config: RunConfig, *, until: str | None = None, refresh: bool = False, progress: Progress | None = None
) -> RunResult:
    """Curate: everything that is not done yet, in the order of the flow.

    Args:
        config: the resolved config.
        until: the last stage to run.
        refresh: list the sources anew, and try again what could not be read.
        progress: where progress goes.

    Raises:
        LvdError: as the stages say.
        StoppedError: on SIGTERM; the run directory can be resumed.
    """
    config = absolute(config)
    require_needed(config.describe)
    run_dir = config.run_dir
    progress = progress or Progress()
    with lock(run_dir) as owned, stop_on_sigterm():
        save_config(run_dir, config)
        before = _config_of_dataset(run_dir)
        remove_leftovers(run_dir)
        # A second time inside: Ray puts a handler of its own in place, which ends with another code.
        logs = storage.join(run_dir, "logs")
        with (
            executor_for(config.executor, progress=progress, logs=logs) as executor,
            stop_on_sigterm(),
        ):
            progress.log_to(logs)
            runner = Runner(run_dir, executor, progress, until, owned=owned)
            runner, manifest = _curate(runner, config, refresh=refresh, before=before)
        storage.remove_tree(storage.join(run_dir, SCRATCH))
    return RunResult(manifest, runner.states)


def _curate(
    runner: Runner, config: RunConfig, *, refresh: bool, before: str | None
) -> tuple[Runner, Manifest | None]:
    """The whole flow with its report, and from its start again where a damaged file can be made anew.

    Args:
        runner: of this run.
        config: of this run.
        refresh: as in `run`.
        before: the hash of the config that the last dataset was made with.

    Returns:
        The runner that came to the end, and the manifest; None where that was not the end of the flow.

    Raises:
        IntegrityError: what is damaged is no item's, or cannot be made anew.
    """
    run_dir = config.run_dir
    healed: set[str] = set()
    while True:
        try:
            made = curate(runner, config, refresh=refresh)
            runner.require_owned()
            manifest = publish_dataset(runner, config, lineage=made.lineage, buckets=made.buckets)
            save_made(run_dir, manifest, made_of(made))
            manifest = _with_report(runner, manifest, before=before)
        except StopHereError:
            return runner, None
        except IntegrityError as error:
            folder = item_to_heal(run_dir, error, receipts=runner.receipts, healed=healed)
            runner.progress.say(f"{error.what}. It is set aside, and {folder} is made anew")
            set_aside(run_dir, folder)
            healed.add(folder)
            runner = runner.anew()
        else:
            return runner, manifest


def _with_report(runner: Runner, manifest: Manifest, *, before: str | None) -> Manifest:
    """The manifest once the report is written, where the one that is there may be of something else."""
    is_new = any(state.num_done < state.num_items for state in runner.states)
    # A dataset may have been made before, by another config.
    if not is_new and manifest["config_sha256"] == before and has_report(manifest):
        return manifest
    from pipelines.report.write import write_report  # plots and templates, for a run that has something new

    write_report(runner.run_dir)
    return read_manifest(runner.run_dir)


def _config_of_dataset(run_dir: str) -> str | None:
    """The hash of the config that the last dataset was made with, if there is one."""
    try:
        return read_manifest(run_dir).get("config_sha256")
    except LvdError:  # none, or a damaged one: it is written anew
        return None


@contextmanager
def executor_for(config: ExecutorConfig, *, progress: Progress, logs: str) -> Iterator[Executor]:
    """The executor that the config names, closed afterwards.

    Args:
        config: names it.
        progress: where words for people go.
        logs: the folder for Ray's own words.
    """
    if config.chosen == "local":
        from pipelines.engine.local import LocalExecutor  # and Ray below: only the one that is asked for

        yield LocalExecutor()
        return
    prepare_ray_environment()
    with terminal_kept(progress, logs), ExitStack() as closing:
        with needing("The executor `ray` needs Ray", install="Install ray[data], or use --executor local"):
            from pipelines.engine.on_ray import RayExecutor
        with sigterm_held():
            executor = RayExecutor(
                config.address,
                workers=config.workers,
                num_cpus=config.num_cpus,
                threads=config.threads,
                say=progress.say,
            )
            closing.callback(executor.close)
        yield executor


def remove_leftovers(run_dir: str) -> None:
    """Remove what dead workers left half done; called under the lock, before any worker is alive."""
    if storage.is_local(run_dir):  # on an object store nothing has another name before it is whole
        root = storage.local_path(run_dir)
        remove_temporaries(root, deep=False)  # a training below it may be alive
        for folder in (root / "configs", root / "steps", *root.glob("dataset-*")):
            remove_temporaries(folder, deep=True)
    tmp = storage.join(run_dir, SCRATCH)
    for name in storage.list_names(tmp):
        path = storage.join(tmp, name)
        if storage.is_dir(path):
            storage.remove_tree(path)
        elif not name.startswith(IN_FLIGHT):  # notes of what an earlier run may have died of
            storage.remove_file(path)
