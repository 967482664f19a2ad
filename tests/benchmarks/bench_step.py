"""One training step, ViT-S/14 with 2 × 224 + 8 × 98 px crops, against the same step written plainly.

python tests/benchmarks/bench_step.py [--dtype fp32] [--batch 8] [--prototypes 65536]

The plain step has the same modules and constants, but forwards global and local crops one after the other,
computes every pair of crops with a log-softmax of its own, and normalises Sinkhorn's matrix in place, as the
official code does. Both sides run in turns, and must come to the same loss.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pretrain.loss.group import Alone
from pretrain.loss.ibot import patch_weights
from pretrain.loss.koleo import koleo_loss
from pretrain.model.heads import HeadConfig
from pretrain.model.network import Network, Scores
from pretrain.model.vit import variant
from pretrain.objective import Batch, ObjectiveConfig, student_losses
from pretrain.optimizer import OptimizerConfig, apply_schedule, build_adamw, clip_gradients, move_teacher
from pretrain.parallel import ParallelConfig, Place, Placed, place
from pretrain.schedules import ScheduleConfig, scheduled
from pretrain.targets import initial_centres, teacher_targets

NUM_LOCAL = 8
TEMPERATURE = 0.07


class Step:
    """A student, a teacher, one batch, and a step in timed parts."""

    def __init__(self, args: argparse.Namespace, dtype: str, where: Place, *, is_plain: bool) -> None:
        torch.manual_seed(0)
        shape = replace(variant("vit_small"), drop_path=args.drop_path)
        head = HeadConfig(shape.dim, args.prototypes)
        config = ParallelConfig(device=where.device.type, dtype=dtype)
        student = Network(shape, head, None)
        teacher = Network(replace(shape, drop_path=0.0), head, None)
        teacher.load_state_dict(student.state_dict())
        teacher.requires_grad_(False)
        self.student, self.teacher = (
            Placed(student.train(), where, config),
            Placed(teacher.eval(), where, config),
        )
        self.optimizer = build_adamw(
            self.student.network.named_parameters(), depth=shape.depth, config=OptimizerConfig()
        )
        self.batch = _batch(args.batch, where)
        self.targets, self.total = (_plain_targets, _plain_total) if is_plain else (_targets, _total)
        self.parts: dict[str, list[float]] = {}
        self.loss = 0.0

    def run(self) -> None:
        """One step; the time of each part is noted."""
        torch.manual_seed(1)
        self._timed("copies of parameters", lambda: (self.student.refresh(), self.teacher.refresh()))
        targets = self._timed("teacher and centring", lambda: self.targets(self))
        total = self._timed("student and losses", lambda: self.total(self, targets))
        self._timed("backward", total.backward)
        self._timed("gradients, AdamW, teacher", self._update)
        self.loss = total.item()

    def _update(self) -> None:
        self.student.take_gradients()
        clip_gradients(self.student.network, limit=3.0)
        apply_schedule(self.optimizer, scheduled(1, ScheduleConfig(iterations=10, base_lr=1e-6)))
        self.optimizer.step()
        self.optimizer.zero_grad()
        move_teacher(self.teacher.network, self.student.network, momentum=0.999)

    def _timed(self, name: str, work: Callable[[], Tensor]) -> Tensor:
        start = time.perf_counter()
        made = work()
        if self.batch.globals_.is_cuda:
            torch.cuda.synchronize()
        self.parts.setdefault(name, []).append(time.perf_counter() - start)
        return made


def _targets(step: Step) -> Scores:
    centres = initial_centres(step.teacher.network, device=step.batch.globals_.device)
    return teacher_targets(
        step.teacher.working, step.batch, centres, ObjectiveConfig(), temperature=TEMPERATURE, group=Alone()
    )[0]


def _total(step: Step, targets: Scores) -> Tensor:
    return student_losses(step.student.working, step.batch, targets, ObjectiveConfig(), group=Alone()).total


@torch.no_grad()
def _plain_targets(step: Step) -> Scores:
    [features] = step.teacher.working.backbone([step.batch.globals_])
    head = step.teacher.working.dino_head
    return Scores(_sinkhorn(head(features.cls)), _sinkhorn(head(features.patches[step.batch.masks])))


def _plain_total(step: Step, targets: Scores) -> Tensor:
    net, batch = step.student.working, step.batch
    [views] = net.backbone([batch.globals_], [batch.masks])
    [crops] = net.backbone([batch.locals_])
    first, second = targets.cls.chunk(2)
    local = net.dino_head(crops.cls).chunk(NUM_LOCAL)
    pairs = [(scores, target) for scores in local for target in (first, second)]
    view_1, view_2 = net.dino_head(views.cls).chunk(2)
    pairs += [(view_1, second), (view_2, first)]
    dino = sum(_cross_entropy(*pair).mean() for pair in pairs) / len(pairs)
    patches = _cross_entropy(net.dino_head(views.patches[batch.masks]), targets.patches)
    ibot = (patches * patch_weights(batch.masks)).sum() / len(batch.globals_)
    koleo = sum(koleo_loss(view, group=Alone()) for view in views.cls.chunk(2))
    return dino + ibot + 0.1 * koleo


def _cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    return -(targets * torch.log_softmax(scores.float() / 0.1, dim=-1)).sum(dim=-1)


def _sinkhorn(logits: Tensor) -> Tensor:
    q = torch.exp(logits.float() / TEMPERATURE).t()
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(dim=1, keepdim=True)
        q /= q.shape[0]
        q /= q.sum(dim=0, keepdim=True)
        q /= q.shape[1]
    return (q * q.shape[1]).t()


def _batch(num_images: int, where: Place) -> Batch:
    rng = torch.Generator().manual_seed(2)
    masks = torch.rand(2 * num_images, 256, generator=rng) < 0.3
    masks[::2] = False  # half of the crops, a third of their patches: what the official masking comes to
    images = (
        torch.randn(count, 3, side, side, generator=rng).to(where.device, where.dtype)
        for count, side in ((2 * num_images, 224), (NUM_LOCAL * num_images, 98))
    )
    return Batch(*images, masks=masks.to(where.device))


def measure(args: argparse.Namespace, dtype: str) -> dict[str, object]:
    """Both sides in turns, in one precision."""
    with place(ParallelConfig(device=args.device, dtype=dtype, threads=args.threads)) as where:
        sides = {name: Step(args, dtype, where, is_plain=name == "plain") for name in ("lvd", "plain")}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for index in range(args.rounds + 1):
            for name, step in sides.items():
                start = time.perf_counter()
                step.run()
                seconds[name].append(time.perf_counter() - start)
            print(
                f"{dtype} round {index}: { ({k: round(v[-1], 2) for k, v in seconds.items()}) } s",
                file=sys.stderr,
            )
    taken = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    parts = {name: statistics.median(values[1:]) for name, values in sides["lvd"].parts.items()}
    losses = [step.loss for step in sides.values()]
    assert abs(losses[0] - losses[1]) <= (1e-4 if dtype == "fp32" else 2e-2) * abs(losses[1]), losses
    return {
        "what": f"training step, ViT-S/14, 2 x 224 + {NUM_LOCAL} x 98 px, K = {args.prototypes}, {dtype}",
        "size": f"batch {args.batch}, drop path {args.drop_path}",
        "rate": round(args.batch / taken["lvd"], 3),
        "unit": "images/s",
        "reference": "the same step written plainly",
        "reference_rate": round(args.batch / taken["plain"], 3),
        "ratio": round(taken["plain"] / taken["lvd"], 2),
        "share": {name: round(value / sum(parts.values()), 3) for name, value in parts.items()},
    }


def main() -> None:
    """Print a JSON line for each precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", choices=("fp32", "bf16"), help="one precision alone")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prototypes", type=int, default=65_536)
    parser.add_argument("--drop-path", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    for dtype in (args.dtype,) if args.dtype else ("fp32", "bf16"):
        print(json.dumps(measure(args, dtype)), flush=True)


if __name__ == "__main__":
    main()
