"""Heads on embeddings: against torch's own modules, a softmax by hand, and whatever the cut into blocks."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from curation.describe.describe import DescribeConfig
from curation.describe.heads import BLOCK_ROWS, Head, Layer, compare, score
from curation.describe.heads_config import HeadsConfig, WeightsHead
from curation.schema import SCORES

WEIGHTS = {"kind": "weights", "weights": "head.pth", "form": "linear"}
PROMPTS = {"kind": "prompts", "like": ["a watermark"], "unlike": ["a photo"]}


def vectors(num: int, dim: int = 12, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(num, dim))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


def layer(linear: nn.Linear, *, relu: bool = False) -> Layer:
    return Layer(linear.weight.detach(), linear.bias.detach(), relu)


def test_one_layer_by_hand() -> None:
    head = Head((Layer(torch.tensor([[2.0, -1.0]]), torch.tensor([0.5])),))
    table = score(np.array([[1, 0], [0, 1], [0, 0]], np.float16), {"aesthetic": head})
    assert table.schema == SCORES
    assert table["aesthetic"].to_pylist() == [2.5, -0.5, None]  # no vector, no score
    assert table["nsfw"].null_count == table["watermark"].null_count == 3


def test_what_is_no_number_is_no_score() -> None:
    head = Head((Layer(torch.tensor([[3e38, 3e38]]), torch.zeros(1)),))
    centred = Head((Layer(torch.ones(1, 2), torch.zeros(1)),), False, torch.zeros(2), torch.tensor([1.0, -1]))
    both = score(np.array([[1, 0], [1, 1]], np.float16), {"nsfw": head, "watermark": centred})
    assert both["nsfw"].is_valid().to_pylist() == [True, False]
    assert both["watermark"].null_count == 2


def test_same_as_torch_s_modules() -> None:
    torch.manual_seed(0)
    linears = [nn.Linear(12, 8), nn.Linear(8, 6), nn.Linear(6, 1)]
    centre, variance = torch.randn(12), torch.rand(12) + 0.1
    head = Head(
        (layer(linears[0], relu=True), layer(linears[1], relu=True), layer(linears[2])),
        True,
        centre,
        variance,
    )
    module = nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.ReLU(), linears[2], nn.Sigmoid())
    x = vectors(40)
    with torch.inference_mode():
        expected = module((torch.from_numpy(x).float() - centre) / variance.sqrt())[:, 0]
    np.testing.assert_allclose(score(x, {"nsfw": head})["nsfw"].to_numpy(), expected, rtol=1e-5)


def test_a_score_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(1)
    head = Head((layer(nn.Linear(12, 1)),))
    x = vectors(BLOCK_ROWS + 7)
    whole = score(x, {"nsfw": head})["nsfw"].to_numpy()
    for cut in (1, 300, BLOCK_ROWS):
        parts = [score(x[a:b], {"nsfw": head})["nsfw"].to_numpy() for a, b in ((0, cut), (cut, len(x)))]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert score(x[:0], {"nsfw": head}).num_rows == 0


def test_two_classes_of_texts_are_a_softmax() -> None:
    yes, no = (torch.from_numpy(vectors(num, seed=num).astype(np.float32)) for num in (3, 2))
    x = vectors(9)
    means = [(t / t.norm(dim=1, keepdim=True)).mean(dim=0) for t in (yes, no)]
    classes = torch.stack([mean / mean.norm() for mean in means])
    expected = (20 * torch.from_numpy(x).float() @ classes.T).softmax(dim=1)[:, 0]
    made = score(x, {"watermark": compare(yes, no, scale=20.0)})["watermark"].to_numpy()
    np.testing.assert_allclose(made, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("describe", "says"),
    [
        ({"heads": {"nsfw": WEIGHTS}}, r"heads\.nsfw is on.*\(gist\).*describe\.heads\.embedder"),
        (
            {"heads": {"nsfw": WEIGHTS}, "embed": {"embedder": "timm:test_vit"}},
            r"heads\.nsfw.*open_clip:ARCH/PRETRAINED_OR_PATH",
        ),
        ({"heads": {"embedder": "timm:test_vit"}}, r"embedder[\s\S]*open_clip:ARCH"),
        ({"heads": {"embedder": "clip"}}, r"embedder[\s\S]*Unknown embedder"),
        (
            {"heads": {"watermark": PROMPTS}, "embed": {"embedder": "precomputed:v.parquet"}},
            r"heads\.watermark scores by prompts.*open_clip:ARCH",
        ),
        ({"heads": {"nsfw": {**WEIGHTS, "weights": "h.pth@12ab"}}}, "64 digits"),
        ({"heads": {"nsfw": {**WEIGHTS, "form": "mlp"}}}, "aesthetic_v2"),
        ({"heads": {"watermark": {**PROMPTS, "unlike": []}}}, "unlike"),
    ],
)
def test_a_head_without_what_it_needs(describe: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        DescribeConfig.model_validate(describe)


def test_which_vectors_heads_look_at() -> None:
    def second(embedder: str, heads: dict[str, object]) -> str | None:
        config = DescribeConfig.model_validate({"embed": {"embedder": embedder}, "heads": heads})
        return config.heads_embed and config.heads_embed.embedder

    clip = "open_clip:ViT-B-32/openai"
    assert second(clip, {"nsfw": WEIGHTS}) is None
    assert second(clip, {"nsfw": WEIGHTS, "embedder": clip}) is None
    assert second("gist", {"nsfw": WEIGHTS, "embedder": clip}) == clip
    assert second("gist", {"embedder": clip}) is None  # no head is on
    head = HeadsConfig.model_validate({"nsfw": {**WEIGHTS, "weights": "a@" + "0F" * 32}}).nsfw
    assert isinstance(head, WeightsHead)
    assert (head.path, head.sha256) == ("a", "0f" * 32)
