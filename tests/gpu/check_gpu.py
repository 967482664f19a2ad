"""Check the trainer on a machine with one CUDA GPU, in one call that needs no pytest:

    python tests/gpu/check_gpu.py --minutes 5

It compares every parity quantity with what the official code computed, draws some hundred pictures into
shards, trains ViT-S/14 on them in bf16 for so many minutes, stops as on SIGTERM, goes on for a few steps, and
prints one line of JSON; the exit code is 0 when all of it was right. The same, small, without a GPU:

    python tests/gpu/check_gpu.py --device cpu --minutes 0.2 --arch vit_micro

What must be importable: torch (2.11 or later), numpy, safetensors, pydantic, jaxtyping, pyarrow, pillow,
simplejpeg, fsspec. Neither Ray, faiss, torchvision, timm nor webdataset is.
"""

import argparse
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, get_args

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests" / "parity"), str(REPO / "tests" / "pretrain")]

import torch  # noqa: E402
from drawn_dataset import draw_jpeg, write_dataset_of  # noqa: E402
from golden import CASES, Case  # noqa: E402
from torch import Tensor  # noqa: E402

from curation.errors import StoppedError  # noqa: E402
from pretrain.checkpoint import newest_sound  # noqa: E402
from pretrain.config import PretrainConfig  # noqa: E402
from pretrain.loss.group import Alone  # noqa: E402
from pretrain.loss.koleo import koleo_loss  # noqa: E402
from pretrain.loss.sinkhorn import sinkhorn_knopp  # noqa: E402
from pretrain.metrics import read_metrics  # noqa: E402
from pretrain.model.vit import Arch  # noqa: E402
from pretrain.objective import Losses  # noqa: E402
from pretrain.optimizer import move_teacher  # noqa: E402
from pretrain.train import train  # noqa: E402

# On the CPU the tests hold 1e-5 for features and losses. cuBLAS sums in another order, and its exp and rsqrt
# differ in the last bit: five times that for features and losses, ten for gradients of a tensor's largest.
FEATURES, LOSS, GRADIENT = 5e-5, 5e-5, 1e-3
NOISE = 1e-6  # of the model's largest gradient: below it a gradient is rounding
NUM_IMAGES, SHARD_IMAGES = 300, 60
MIN_STEPS = 30  # before it is stopped
STEPS_AFTER = 3  # taken once it was resumed


def main() -> int:
    """Run all checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training")
    parser.add_argument("--arch", choices=get_args(Arch), default="vit_small")
    parser.add_argument("--batch", type=int, help="images in a step (128; on a CPU 8)")
    parser.add_argument("--compile", action="store_true", help="compile the blocks")
    arguments = parser.parse_args()
    # TF32 keeps 10 bits of a product's factors: no parity with it.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    faults = check_parity(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        line, more = check_training(Path(folder), arguments)
    faults |= more
    print(json.dumps({"what": "check_gpu", "torch": torch.__version__, **line, "faults": faults}))
    return 1 if faults else 0


def check_parity(device: str) -> dict[str, Any]:
    """The quantities that are not what the official code computed, with their errors."""
    assert CASES, "tests/data/golden is empty"
    faults = {}
    for name in CASES:
        case = Case(name, device)
        for check in (features_of, teacher_of, losses_of, gradients_of):
            for what, (error, limit) in check(case).items():
                if not error <= limit:  # a NaN is a fault, too
                    faults[f"{name}: {what}"] = f"{error:.2g} above {limit:.0e}"
    return faults


Errors = dict[str, tuple[float, float]]  # what: error, limit


def distance(got: Tensor, expected: Tensor) -> float:
    """The largest absolute difference."""
    assert got.shape == expected.shape
    return (got - expected).abs().max().item()


@torch.no_grad()
def features_of(case: Case) -> Errors:
    """Student features of masked, small and rectangular images."""
    model, batch, known = case.network("student").backbone.eval(), case.batch, case.tensors
    views, crops = model([batch.globals_, batch.locals_], [batch.masks, None])
    [rect] = model([known["in.rect"]])
    pairs = {
        "student_global_cls": views.cls,
        "student_global_patch": views.patches,
        "student_global_prenorm": views.prenorm,
        "student_local_cls": crops.cls,
        "rect_cls": rect.cls,
    }
    for number, layer in enumerate(model.intermediate_layers(known["in.rect"], 2)):
        pairs |= {f"rect_layer{number}_{part}": x for part, x in zip(("cls", "patch"), layer, strict=True)}
    return {name: (distance(x, known[f"out.{name}"]), FEATURES) for name, x in pairs.items()}


@torch.no_grad()
def teacher_of(case: Case) -> Errors:
    """The teacher's head and targets, the KoLeo loss, and the teacher after a step."""
    known = case.tensors
    student, teacher = case.network("student"), case.network("teacher")
    [features] = teacher.backbone([case.batch.globals_])
    head = teacher.dino_head(features.cls)
    targets = sinkhorn_knopp(known["in.sk_logits"], temperature=case.facts["teacher_temp"], group=Alone())
    koleo = koleo_loss(known["in.koleo"], group=Alone())
    move_teacher(teacher, student, momentum=case.facts["ema_momentum"])
    moved = max(distance(x, case.under("ema")[name]) for name, x in teacher.state_dict().items())
    return {
        "teacher_head_cls": (distance(head, known["out.teacher_head_cls"]), FEATURES),
        "sinkhorn": (distance(targets, known["out.sk"]), FEATURES),
        "koleo of features": (abs(koleo.item() / known["out.koleo"][0].item() - 1), LOSS),
        "teacher after a step": (moved, 1e-6),
    }


def losses_of(case: Case) -> Errors:
    """Every term of two steps."""
    errors = {}
    for number, losses in enumerate(case.steps[0]):
        for term in Losses._fields:
            shown = {"dino_local": "dino_local_crops", "dino_global": "dino_global_crops"}.get(term, term)
            halved = 2 if term in ("ibot", "koleo") else 1  # as the official log shows them
            expected = halved * case.facts["losses"][number][f"{shown}_loss"]
            errors[f"{term} of step {number}"] = (abs(getattr(losses, term).item() / expected - 1), LOSS)
    return errors


def gradients_of(case: Case) -> Errors:
    """The gradient of every parameter, as a share of its own largest."""
    expected = case.under("grad")
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    found = dict(case.steps[1].named_parameters())
    assert found.keys() == expected.keys()
    return {
        f"gradient of {name}": (
            distance(found[name].grad, gradient) / max(gradient.abs().max().item(), NOISE * largest),
            GRADIENT,
        )
        for name, gradient in expected.items()
    }


def check_training(folder: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Train for a while, stop, go on; what was measured, and what was wrong."""
    is_gpu = arguments.device == "cuda"
    size_px = (320, 288) if is_gpu else (72, 64)
    pictures = [draw_jpeg(number, size_px=size_px) for number in range(NUM_IMAGES)]
    shards = [pictures[start : start + SHARD_IMAGES] for start in range(0, NUM_IMAGES, SHARD_IMAGES)]
    dataset = write_dataset_of(folder / "data", shards)
    config = config_of(arguments, dataset, folder / "run", iterations=1_000_000)
    warnings: list[str] = []
    end_after(MIN_STEPS, 60 * arguments.minutes, of=folder / "run")
    try:
        train(config, quiet=True)
        raise AssertionError("it cannot have come to its end")
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
    before = read_metrics(folder / "run")
    saved = newest_sound(folder / "run", warn=warnings.append)
    assert saved is not None
    end_after(len(before) + STEPS_AFTER, 0, of=folder / "run")
    try:
        train(config, quiet=True)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
    lines = read_metrics(folder / "run")
    return measures_of(config, before), faults_of(before, lines) | dict.fromkeys(warnings, "said")


def config_of(
    arguments: argparse.Namespace, dataset: Path, run_dir: Path, *, iterations: int
) -> PretrainConfig:
    """ViT-S/14 as `small_gpu.yaml` has it, with a short warm-up; on a CPU all is smaller."""
    is_gpu = arguments.device == "cuda"
    crops = {"global_size_px": 224, "local_size_px": 98}
    heads = {"prototypes": 16_384}
    if not is_gpu:
        crops = {"global_size_px": 56, "local_size_px": 28, "num_local": 2}
        heads = {"prototypes": 64, "hidden_dim": 64, "bottleneck_dim": 32}
    return PretrainConfig.model_validate(
        {
            "run_dir": str(run_dir),
            "batch_images": arguments.batch or (128 if is_gpu else 8),
            "data": {"path": str(dataset), "workers": min(14, (os.cpu_count() or 2) - 1) if is_gpu else 1},
            "model": {"arch": arguments.arch, "drop_path": 0.1},
            "heads": heads,
            "crops": crops,
            "schedule": {"iterations": iterations, "base_lr": 2e-3, "lr_warmup": 20},
            "checkpoint": {"every": 1_000_000},
            "parallel": {
                "device": arguments.device,
                "dtype": "bf16" if is_gpu else "fp32",
                "compile": arguments.compile,
            },
        }
    )


def end_after(num_steps: int, seconds: float, *, of: Path) -> None:
    """Send this process a SIGTERM so many seconds after a training's first step, and after so many steps."""

    def wait() -> None:
        while not read_metrics(of):
            time.sleep(0.05)
        time.sleep(seconds)
        while len(read_metrics(of)) < num_steps:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def measures_of(config: PretrainConfig, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Speed and memory; the first steps, which wait for workers and kernels, are left out."""
    steady = lines[len(lines) // 4 :]
    name = torch.cuda.get_device_name() if config.parallel.device == "cuda" else "cpu"
    peak = torch.cuda.max_memory_allocated() if config.parallel.device == "cuda" else None
    return {
        "device": name,
        "arch": config.model.arch,
        "batch_images": config.batch_images,
        "steps": len(lines),
        "images_per_s": round(config.batch_images * len(steady) / sum(x["step_s"] for x in steady), 1),
        "data_wait": round(statistics.mean(x["data_wait"] for x in steady), 3),
        "peak_bytes": peak,
        "first_loss": lines[0]["loss"],
        "last_loss": lines[-1]["loss"],
    }


def faults_of(before: list[dict[str, Any]], lines: list[dict[str, Any]]) -> dict[str, str]:
    """What is wrong with the steps of a training that was stopped once."""
    faults = {}
    steps = [line["step"] for line in lines]
    if steps != list(range(1, len(lines) + 1)) or len(lines) < len(before) + STEPS_AFTER:
        faults["steps"] = f"{len(before)} steps, then {steps[len(before) :]}"
    terms = ("loss", *Losses._fields, "grad_norm_backbone", "grad_norm_dino_head")
    odd = [
        line["step"] for line in lines if any(line[t] is None or not math.isfinite(line[t]) for t in terms)
    ]
    if odd or any(line["skipped"] for line in lines):
        faults["not finite"] = f"steps {odd[:5]}"
    part = max(1, len(before) // 5)
    first, last = (statistics.mean(x["loss"] or math.nan for x in x) for x in (before[:part], before[-part:]))
    if not last < first:
        faults["loss"] = f"{first} over the first fifth, {last} over the last"
    return faults


if __name__ == "__main__":
    raise SystemExit(main())
