"""Train SSCD for some minutes on photographs, for benchmarks: the published weights cannot be fetched.

    python tests/benchmarks/short_sscd.py OUT.torchscript.pt [--minutes M] [--side-px S] [--batch N]

Two edits of every photograph attract each other and repel those of all others in the batch (InfoNCE), and a
differential entropy keeps every descriptor away from its nearest neighbour, as the paper does with a thousand
times the compute. The file is a TorchScript archive with torchvision's layout, as the published one is.

Source: arXiv:2202.10261, §3 (eq. 3 to 5).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from published_sscd import TorchvisionModel, save_torchscript

from pretrain.data.augment import normalise

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
TEMPERATURE, ENTROPY_WEIGHT = 0.05, 5.0


def main() -> None:
    """Train, save, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos", type=Path, default=REAL / "pool")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--side-px", type=int, default=64)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1e-3)
    given = parser.parse_args()
    torch.manual_seed(0)
    pictures = read_pictures(given.photos, side_px=given.side_px * 3 // 2)
    model = TorchvisionModel()
    num_steps, losses = train(model, pictures, given)
    save_torchscript(model.eval(), given.out)
    line = {
        "what": "short training of SSCD",
        "size": {"photographs": len(pictures), "side_px": given.side_px, "batch": given.batch},
        "steps": num_steps,
        "loss": [round(float(np.mean(losses[:20])), 3), round(float(np.mean(losses[-20:])), 3)],
        "minutes": given.minutes,
    }
    print(json.dumps(line))


def read_pictures(folder: Path, *, side_px: int) -> list[Tensor]:
    """Every picture below a folder, squashed to a square, 0–255."""
    pictures = []
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in {".jpg", ".jpeg", ".png", ".webp"}:
            continue
        with Image.open(file) as image:
            small = image.convert("RGB").resize((side_px, side_px), Image.Resampling.BILINEAR)
        pictures.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    return pictures


def edits(side_px: int) -> nn.Module:
    """What is done to one picture: geometry, colour, blur, an overlay in the form of an erased patch."""
    return v2.Compose(
        [
            v2.RandomApply([v2.Pad(side_px // 5, fill=127)], p=0.15),
            v2.RandomResizedCrop(side_px, scale=(0.25, 1.0), ratio=(0.6, 1.6), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.6, 0.6, 0.6, 0.15)], p=0.7),
            v2.RandomGrayscale(0.1),
            v2.RandomApply([v2.GaussianBlur(5, (0.3, 2.0))], p=0.3),
            v2.RandomErasing(p=0.4, scale=(0.02, 0.25), value=200),
        ]
    )


def train(model: nn.Module, pictures: list[Tensor], given: argparse.Namespace) -> tuple[int, list[float]]:
    """AdamW over so many minutes with a cosine of the time that is left; steps and losses."""
    edit = edits(given.side_px)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr, weight_decay=1e-3)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start, losses = time.monotonic(), []
    while (spent := (time.monotonic() - start) / (60 * given.minutes)) < 1:
        optimizer.param_groups[0]["lr"] = given.lr * min(1.0, (1 + len(losses)) / 30, 1.02 - spent)
        chosen = torch.randperm(len(pictures))[: given.batch].tolist()
        views = torch.stack([edit(pictures[i]) for i in chosen + chosen])
        descriptors = model(normalise(views).contiguous(memory_format=torch.channels_last))
        loss = contrast(descriptors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if len(losses) % 20 == 0:
            print(f"step {len(losses)}  loss {np.mean(losses[-20:]):.3f}", file=sys.stderr, flush=True)
    return len(losses), losses


def contrast(descriptors: Tensor) -> Tensor:
    """InfoNCE of the two halves of a batch, and the entropy term: -log of the distance to the nearest other.

    Args:
        descriptors: (2n, d), unit rows; row i and row n + i are of one picture.
    """
    num = len(descriptors)
    similarity = descriptors @ descriptors.T - 4 * torch.eye(num)
    partner = torch.arange(num).roll(num // 2)
    attract = nn.functional.cross_entropy(similarity / TEMPERATURE, partner)
    others = similarity.scatter(1, partner[:, None], -4.0)
    nearest = (2 - 2 * others.amax(dim=1)).clamp(min=1e-6).sqrt()
    return attract - ENTROPY_WEIGHT * nearest.log().mean() / 10


if __name__ == "__main__":
    main()
