"""A training whose checkpoints, shards or processes are lost: it goes on to the same weights."""

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pretrain.checkpoint_files import step_dir
from pretrain.metrics import read_metrics
from tests.acceptance.lvd_process import LvdProcess, start_lvd
from tests.chaos import forked
from tests.chaos.bench import Workbench, last_words, sample, unsaid
from tests.chaos.calls import calls_of
from tests.chaos.damage import DAMAGES, flip
from tests.chaos.trial import Trial
from tests.faults.processes import is_rank, is_torchrun, kill_marked, left_behind, marked

STEPS, EVERY = 16, 4
SETTINGS = (
    "batch_images=8", f"schedule.iterations={STEPS}", "schedule.lr_warmup=4", "schedule.freeze_last_layer=2",
    "schedule.teacher_temperature_warmup=4", f"checkpoint.every={EVERY}", "checkpoint.keep=2",
    "heads.prototypes=64", "crops.num_local=2",
)  # fmt: skip
GONE_S = 60.0


def command(data: Path, run_dir: Path, *settings: str) -> list[str]:
    """The command line of a training of some seconds."""
    chosen = (f"data.path={data}", f"run_dir={run_dir}", *SETTINGS, *settings)
    return ["pretrain", "tiny_cpu.yaml", *(f"--set={setting}" for setting in chosen)]


def weights_of(run_dir: Path) -> str:
    """Hash of all that the last checkpoint of a finished training holds of its state."""
    files = sorted(step_dir(run_dir, STEPS).glob("*.safetensors"))
    assert files, f"no weights in {run_dir}"
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _finished(run_dir: Path, log: Path, code: int, wanted: str) -> str:
    if code:
        return f"run again it ends with {code}: {last_words(log)}"
    return "" if weights_of(run_dir) == wanted else "other weights"


def checkpoints(bench: Workbench) -> Iterator[Trial]:
    """A file of the newest checkpoint is damaged, a commit is cut off, a shard is another than it was."""
    data, folder = bench.reference(), bench.fresh("checkpoints")
    log = folder / "log"
    assert forked.run(command(data, folder / "whole"), log=log) == 0, log.read_text()
    wanted = weights_of(folder / "whole")
    template = folder / "template"
    lvd = forked.start(command(data, template), log=folder / "template.log")
    _wait_for_step(template, 2 * EVERY + 1, lambda: lvd.code is not None)
    os.kill(lvd.pid, signal.SIGKILL)
    lvd.wait()
    rng = bench.rng("checkpoints")
    newest = step_dir(template, 2 * EVERY)
    for path in sorted(path for path in newest.rglob("*") if path.is_file()):
        for harm in DAMAGES:
            run_dir = folder / "damaged"
            shutil.rmtree(run_dir, ignore_errors=True)
            shutil.copytree(template, run_dir)
            harm(run_dir / path.relative_to(template), rng)
            code = forked.run(command(data, run_dir), log=(log := folder / "damaged.log"))
            said, wrong = unsaid(log), _finished(run_dir, log, code, wanted)
            fault = f"{harm.__name__} {path.relative_to(newest.parent)}"
            yield Trial("damaged checkpoints", fault, not said, not wrong, said or wrong)
            log.unlink()
    yield from _cut_off(bench, folder, wanted)
    yield _damaged_shard(bench, folder, wanted)


def _cut_off(bench: Workbench, folder: Path, wanted: str) -> Iterator[Trial]:
    """SIGKILL as a checkpoint is synced, renamed or removed."""
    data, rng = bench.reference(), bench.rng("cut off")
    names = ("fsync", "rename", "unlink", "unlinkat", "rmdir")
    calls = calls_of(bench, names, arguments=partial(command, data))
    for name in names:
        numbers = [call.number for call in calls if call.name == name]
        for number in numbers if bench.every else sample(numbers, 3, rng):
            run_dir, log = folder / "cut", folder / "cut.log"
            shutil.rmtree(run_dir, ignore_errors=True)
            log.unlink(missing_ok=True)
            trace = ["-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"]
            code = forked.start(command(data, run_dir), log=log, trace=trace).wait()
            # Where the call is one of a process that makes crops, the training says that it is gone.
            is_told = code in (-9, 0) or (code == 1 and "lvd: " in log.read_text(errors="replace"))
            said = unsaid(log) or ("" if is_told else f"ended with {code}: {last_words(log)}")
            again = forked.run(command(data, run_dir), log=log)
            said = said or unsaid(log)
            wrong = _finished(run_dir, log, again, wanted)
            yield Trial("killed trainings", f"SIGKILL at {name} {number}", not said, not wrong, said or wrong)


def _damaged_shard(bench: Workbench, folder: Path, wanted: str) -> Trial:
    """One bit of a shard is turned: nothing is trained on it; when it is right again, all is as before."""
    run_dir, log = folder / "on-damaged", folder / "on-damaged.log"
    data = bench.copy_of_reference(bench.fresh("shards"))
    shard = sorted(data.glob("dataset-*/*.tar"))[0]
    before = shard.read_bytes()
    flip(shard, bench.rng("shards"))
    code = forked.run(command(data, run_dir), log=log)
    said = unsaid(log)
    if not said and (code == 0 or shard.name not in log.read_text()):
        said = f"trained on a damaged shard: ended with {code}: {last_words(log)}"
    shard.write_bytes(before)
    again = forked.run(command(data, run_dir), log=log)
    wrong = _finished(run_dir, log, again, wanted)
    return Trial("damaged checkpoints", "flip a shard under a training", not said, not wrong, said or wrong)


def ranks(bench: Workbench) -> Iterator[Trial]:
    """One of the processes of a training on two ranks is killed."""
    data, folder = bench.reference(), bench.fresh("ranks")
    two = ("parallel.processes=2",)
    whole = start_lvd(command(data, folder / "whole", *two), log=folder / "log")
    assert whole.wait(forked.TIMEOUT_S) == 0, whole.text()
    wanted = weights_of(folder / "whole")
    for victim in ("lvd", "torchrun", "rank 0", "rank 1"):
        run_dir = folder / victim.replace(" ", "-")
        lvd = start_lvd(command(data, run_dir, *two), log=folder / f"{run_dir.name}.log")
        _wait_for_step(run_dir, EVERY + 1, lambda lvd=lvd: lvd.process.poll() is not None)
        _kill(lvd, victim)
        code = lvd.wait(forked.TIMEOUT_S)
        left = left_behind(lvd.mark, timeout_s=GONE_S)
        said = f"left behind: {left}" if left else ""
        if victim != "lvd" and (code != 1 or "lvd: " not in lvd.text()):
            said = said or f"ended with {code}: {last_words(lvd.log)}"
        again = start_lvd(command(data, run_dir, *two), log=lvd.log)
        wrong = _finished(run_dir, lvd.log, again.wait(forked.TIMEOUT_S), wanted)
        yield Trial("killed trainings", f"SIGKILL to {victim} of two", not said, not wrong, said or wrong)


def _kill(lvd: LvdProcess, victim: str) -> None:
    if victim == "lvd":
        os.kill(lvd.process.pid, signal.SIGKILL)
    elif victim == "torchrun":
        assert kill_marked(lvd.mark, is_torchrun)
    else:
        # The first process of a training has the lowest number among those that torchrun has started.
        ranks = sorted(
            pid for pid, words in marked(lvd.mark).items() if is_rank(words) and pid != lvd.process.pid
        )
        os.kill(ranks[int(victim.removeprefix("rank "))], signal.SIGKILL)


def _wait_for_step(
    run_dir: Path, step: int, has_ended: Callable[[], bool], *, timeout_s: float = forked.TIMEOUT_S
) -> None:
    end = time.monotonic() + timeout_s
    while not (run_dir / "metrics.jsonl").exists() or _last_step(run_dir) < step:
        assert not has_ended(), "the training had ended before"
        assert time.monotonic() < end, "the training does not come that far"
        time.sleep(0.01)


def _last_step(run_dir: Path) -> int:
    lines = read_metrics(run_dir)
    return lines[-1]["step"] if lines else 0
