"""Two students distilled in one run against two runs of one student each.

python tests/benchmarks/bench_distill.py [--teacher vit_base] [--student vit_tiny] [--batch 16] [--steps 4]

The crops are ready-made noise, so that only the steps are timed: the teacher's forward and targets, both
students' forwards and backwards, AdamW, the means. Each round takes one step of the run with both students,
and one of either run with one; that the students come to the same bits is tested elsewhere. On a CPU it is
processor time, which another busy process disturbs less. The teacher is 16 times as large as a student, as an
L is to an S; its share of a lone run's step is printed too.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace

import torch
from torch import Tensor

from pretrain.data.loader import CropBatch
from pretrain.distill import build, num_parameters, plan_of
from pretrain.distill_config import DistillConfig
from pretrain.model.heads import HeadConfig
from pretrain.model.network import Network
from pretrain.model.vit import Arch, variant
from pretrain.parallel import Place, place
from pretrain.teacher import Teacher
from pretrain.train_step import State, StepPlan, to_batch, train_step

PATCH_PX, GLOBAL_PX, LOCAL_PX, NUM_LOCAL = 16, 96, 48, 4


def main() -> int:
    """Print one JSON line; exit code 1 when two in one run cost 0.75 of two runs or more."""
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    names = ("first", "second")
    with place(_config(args, names).parallel) as where:
        teacher = _teacher(args.teacher, args.prototypes)
        runs = {which: _begin(args, which, teacher, where) for which in (names, names[:1], names[1:])}
        batch = _batch(args.batch)
        times: dict[str, list[float]] = {"together": [], "apart": [], "teacher": []}
        for step in range(args.steps + 1):
            together, *apart = (_timed(*run, batch, where) for run in runs.values())
            looked = _timed_look(runs[names[:1]][0], batch, where)
            if step:  # the first one warms up
                times["together"].append(together)
                times["apart"].append(sum(apart))
                times["teacher"].append(looked)
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratios = [one / two for one, two in zip(times["together"], times["apart"], strict=True)]
    cost = medians["together"] / medians["apart"]
    students = runs[names][0].learners
    found = {
        "bench": "distill",
        "device": where.device.type,
        "dtype": str(where.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "batch": args.batch,
        "teacher": args.teacher,
        "teacher_parameters": num_parameters(teacher.network.backbone),
        "student": args.student,
        "student_parameters": num_parameters(students[0].student.network.backbone),
        "steps": args.steps,
        "two_in_one_run_s": round(medians["together"], 4),
        "two_runs_s": round(medians["apart"], 4),
        "cost": round(cost, 3),
        "cost_spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "teacher_share_of_one_run": round(2 * medians["teacher"] / medians["apart"], 3),
    }
    print(json.dumps(found))
    return int(cost >= 0.75)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", default="vit_base")
    parser.add_argument("--student", default="vit_tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--prototypes", type=int, default=4096)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def _config(args: argparse.Namespace, names: tuple[str, ...]) -> DistillConfig:
    student = {"model": {"arch": args.student, "patch_px": PATCH_PX}}
    return DistillConfig.model_validate(
        {
            "batch_images": args.batch,
            "teacher": {"path": "made here"},
            "students": dict.fromkeys(names, student),
            "crops": {"global_size_px": GLOBAL_PX, "local_size_px": LOCAL_PX, "num_local": NUM_LOCAL},
            "schedule": {"iterations": 1000},
            "parallel": {"device": args.device, "dtype": args.dtype},
        }
    )


def _teacher(arch: Arch, prototypes: int) -> Teacher:
    torch.manual_seed(0)
    shape = replace(variant(arch), patch_px=PATCH_PX, grid=GLOBAL_PX // PATCH_PX)
    network = Network(shape, HeadConfig(shape.dim, prototypes), None)
    return Teacher(network.eval().requires_grad_(False), None, {"path": arch, "step": None, "sha256": ""})


def _begin(
    args: argparse.Namespace, names: tuple[str, ...], teacher: Teacher, where: Place
) -> tuple[State, StepPlan]:
    config = _config(args, names)
    return build(config, teacher, where), plan_of(config, teacher)


def _batch(num_images: int) -> CropBatch:
    rng = torch.Generator().manual_seed(0)

    def noise(num: int, side_px: int) -> Tensor:
        return torch.randint(0, 256, (num, 3, side_px, side_px), generator=rng).byte()

    masks = torch.rand(2 * num_images, (GLOBAL_PX // PATCH_PX) ** 2, generator=rng) < 0.15
    globals_, locals_ = noise(2 * num_images, GLOBAL_PX), noise(NUM_LOCAL * num_images, LOCAL_PX)
    return CropBatch(0, globals_, locals_, masks, torch.arange(num_images), 0)


def _clock(where: Place) -> float:
    return time.process_time() if where.device.type == "cpu" else time.perf_counter()


def _timed(state: State, plan: StepPlan, batch: CropBatch, where: Place) -> float:
    started = _clock(where)
    train_step(state, batch, plan, where)  # its losses come to the CPU, so that it is over
    return _clock(where) - started


@torch.no_grad()
def _timed_look(state: State, batch: CropBatch, where: Place) -> float:
    images = to_batch(batch, where).globals_
    started = _clock(where)
    [features] = state.teacher.working.backbone([images])
    features.cls.sum().item()
    return _clock(where) - started


if __name__ == "__main__":
    sys.exit(main())
