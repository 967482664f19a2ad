"""`gist` on real photographs: k-NN on imagenette beside raw pixels, recall of edited copies, and rate.

Needs the development data in ../shared; prints one JSON line with a null rate where it is absent.
"""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from curation.describe.gist import Gist
from curation.pictures.decode import DecodeConfig, decode
from curation.pictures.views import render

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
NUM_ORIGINALS = 300
THRESHOLDS = np.arange(0.70, 0.995, 0.005)


def _save(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _cut(image: Image.Image, share: float) -> Image.Image:
    dx, dy = int(image.width * share), int(image.height * share)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


EDITS: dict[str, Callable[[Image.Image], bytes]] = {
    "reencode_q75": lambda image: _save(image, 75),
    "reencode_q30": lambda image: _save(image, 30),
    "resize_half": lambda image: _save(image.resize((image.width // 2, image.height // 2)), 90),
    "resize_double": lambda image: _save(image.resize((image.width * 2, image.height * 2)), 90),
    "crop_3pct": lambda image: _save(_cut(image, 0.03), 90),
    "crop_8pct": lambda image: _save(_cut(image, 0.08), 90),
    "brightness": lambda image: _save(ImageEnhance.Brightness(image).enhance(1.25), 90),
    "contrast": lambda image: _save(ImageEnhance.Contrast(image).enhance(0.75), 90),
    "saturation": lambda image: _save(ImageEnhance.Color(image).enhance(0.5), 90),
    "blur": lambda image: _save(image.filter(ImageFilter.GaussianBlur(1.5)), 90),
}


def _view(data: bytes, gist: Gist) -> np.ndarray:
    decoded = decode(data, need_side_px=gist.view.need_side_px, config=DecodeConfig())
    assert decoded.pixels is not None
    return render(decoded.pixels, gist.view)


def _accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray, *, k: int) -> float:
    nearest = np.argsort(-(test @ train.T), axis=1, kind="stable")[:, :k]
    votes = (labels[nearest][:, :, None] == np.arange(labels.max() + 1)).sum(axis=1)
    return round(100 * float((votes.argmax(axis=1) == truth).mean()), 1)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.reshape(len(rows), -1).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure_knn(gist: Gist) -> dict[str, object]:
    """k-NN accuracy on imagenette (train to val), with that of raw pixels beside it."""
    views, labels = {}, {}
    for split in ("train", "val"):
        files = sorted((REAL / "imagenette" / split).rglob("*.JPEG"))
        names = sorted({file.parent.name for file in files})
        views[split] = np.stack([_view(file.read_bytes(), gist) for file in files])
        labels[split] = np.array([names.index(file.parent.name) for file in files])
    start = time.perf_counter()
    train = gist.embed(views["train"]).astype(np.float32)
    rate = len(train) / (time.perf_counter() - start)
    val = gist.embed(views["val"]).astype(np.float32)
    raw = [_unit(views[split].astype(np.float32) - 127) for split in ("train", "val")]
    result: dict[str, object] = {"images_per_s": round(rate)}
    for k in (10, 20):
        result[f"knn{k}"] = _accuracy(train, labels["train"], val, labels["val"], k=k)
        result[f"knn{k}_raw_pixels"] = _accuracy(raw[0], labels["train"], raw[1], labels["val"], k=k)
    return result


def measure_copies(gist: Gist) -> dict[str, object]:
    """Recall of each edit at the smallest threshold with precision >= 0.99 over all pairs of the set."""
    files = sorted((REAL / "pool").rglob("*.jpg"))
    chosen = np.random.default_rng(0).choice(len(files), NUM_ORIGINALS, replace=False)
    originals = [files[i].read_bytes() for i in np.sort(chosen)]
    rows = [np.stack([_view(data, gist) for data in originals])]
    for edit in EDITS.values():
        edited = [edit(Image.open(io.BytesIO(data)).convert("RGB")) for data in originals]
        rows.append(np.stack([_view(data, gist) for data in edited]))
    vectors = gist.embed(np.concatenate(rows)).astype(np.float32)
    cosine = vectors @ vectors.T
    owner = np.tile(np.arange(NUM_ORIGINALS), len(rows))
    pairs = np.triu(np.ones_like(cosine, bool), 1)
    same = pairs & (owner[:, None] == owner[None, :])
    true, false = cosine[same], cosine[pairs & ~same]
    table = [(float(t), int((true >= t).sum()), int((false >= t).sum())) for t in THRESHOLDS]
    threshold = next((t for t, hits, wrong in table if hits >= 0.99 * (hits + wrong)), 1.0)
    own = [
        np.diag(cosine[:NUM_ORIGINALS, i * NUM_ORIGINALS : (i + 1) * NUM_ORIGINALS]) for i in range(len(rows))
    ]
    return {
        "threshold": round(threshold, 3),
        "recall": {name: round(float((own[i + 1] >= threshold).mean()), 3) for i, name in enumerate(EDITS)},
        "lowest_cosine": {name: round(float(own[i + 1].min()), 3) for i, name in enumerate(EDITS)},
        "strangers_p50": round(float(np.median(false)), 3),
        "strangers_max": round(float(false.max()), 3),
        "false_pairs_at": {f"{t:.2f}": int((false >= t).sum()) for t in (0.80, 0.85, 0.90, 0.95)},
        "recall_at_0.90": {name: round(float((own[i + 1] >= 0.9).mean()), 3) for i, name in enumerate(EDITS)},
    }


def main() -> None:
    """Print one JSON line."""
    line: dict[str, object] = {"what": "gist", "size": "64 px views, 664-d", "rate": None, "unit": "images/s"}
    if REAL.is_dir():
        gist = Gist()
        knn, copies = measure_knn(gist), measure_copies(gist)
        line |= {
            "rate": knn["images_per_s"],
            "reference": "k-NN of raw pixels",
            "reference_rate": knn["knn20_raw_pixels"],
            "ratio": round(float(str(knn["knn20"])) / float(str(knn["knn20_raw_pixels"])), 2),
            "knn": knn,
            "copies": copies,
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
