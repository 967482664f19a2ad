"""Runs the families of faults and prints the table."""

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.bench import Workbench
    from tests.chaos.trial import Trial

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# What a run imports: done once, before anything is forked.
IMPORTED = (
    "matplotlib.figure", "open_clip", "simplejpeg", "timm", "torch", "pipelines.answers.explain",
    "pipelines.answers.verify", "pipelines.cli.main", "pipelines.engine.local", "pipelines.report.write",
    "pipelines.run",
)  # fmt: skip


def families() -> "dict[str, Callable[[Workbench], Iterable[Trial]]]":
    """Every family of faults by its name."""
    from tests.chaos import calls, damage, disks, entries, ray_processes, store, training

    return {
        "kills": calls.kills,
        "io_errors": calls.io_errors,
        "disks": disks.disks,
        "steps": damage.damage_of_steps,
        "datasets": damage.damage_of_datasets,
        "entries": entries.entries,
        "swapped": entries.swapped,
        "store": store.store,
        "checkpoints": training.checkpoints,
        "ranks": training.ranks,
        "ray": ray_processes.ray_processes,
    }


def main() -> int:
    """Run what is asked for; 1 where a fault is not survived as promised."""
    known = families()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(known)}; all")
    parser.add_argument("--all", action="store_true", help="every moment and file, not a seeded sample")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if unknown := set(arguments.families) - set(known):
        parser.error(f"no such family: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for module in IMPORTED:
        importlib.import_module(module)
    from tests.chaos.bench import Workbench
    from tests.chaos.trial import table

    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="lvd-chaos-") as root:
        Path(root).chmod(0o755)
        bench = Workbench(Path(root), arguments.seed, arguments.all)
        for name in arguments.families or known:
            started = time.monotonic()
            for trial in known[name](bench):
                trials.append(trial)
                if trial.is_exception:
                    print(f"EXCEPTION {trial.family}: {trial.fault}: {trial.said}", flush=True)
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    print("\n".join(table(trials)))
    return int(any(trial.is_exception for trial in trials))


if __name__ == "__main__":
    # A fork of a process with threads is no sound ground: nothing may start any before there is one.
    os.environ.update(dict.fromkeys(THREADS, "1"))
    sys.exit(main())
