"""Heads in their published formats, saved here as their authors save them; heads of words by open_clip."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from curation import storage
from curation.describe.describe import DescribeConfig
from curation.describe.embed import parse_embedder
from curation.describe.heads import Head, score
from curation.describe.heads_config import PromptsHead, WeightsHead
from curation.errors import ConfigError, ModelError
from pipelines.models.head_weights import load_head
from pipelines.models.heads import load_heads, require_heads
from pipelines.models.identity import heads_identity
from pipelines.models.prompts import load_prompts

DIM = 16
TINY = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


class Standardised(nn.Module):
    """LAION's NSFW detector for ViT-L/14, as it was ported from Keras: (x - mean) / sqrt(variance), ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.randn(DIM) * 0.1)
        self.norm.register_buffer("variance", torch.rand(DIM) + 0.05)
        self.linear_1, self.linear_2 = nn.Linear(DIM, 6), nn.Linear(6, 8)
        self.linear_3, self.linear_4 = nn.Linear(8, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.norm.mean) / self.norm.variance.sqrt()
        for linear in (self.linear_1, self.linear_2, self.linear_3):
            x = linear(x).relu()
        return self.linear_4(x).sigmoid()


class Stack(nn.Module):
    """Modules under the name `layers`, as both of LAION's stacks have it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def aesthetic_v2() -> nn.Module:
    drop = nn.Dropout(0.2)
    return Stack(
        nn.Linear(DIM, 10),
        drop,
        nn.Linear(10, 8),
        drop,
        nn.Linear(8, 6),
        drop,
        nn.Linear(6, 4),
        nn.Linear(4, 1),
    )


def nsfw_h14() -> nn.Module:
    layers: list[nn.Module] = []
    for into, out in ((DIM, 10), (10, 20), (20, 12), (12, 8), (8, 6)):
        layers += [nn.Linear(into, out), nn.ReLU(), nn.Dropout(0.2)]
    return Stack(*layers, nn.Linear(6, 4), nn.Linear(4, 1))


def published(form: str) -> nn.Module:
    torch.manual_seed(3)
    match form:
        case "linear":
            made: nn.Module = nn.Linear(DIM, 1)
        case "aesthetic_v2":
            made = aesthetic_v2()
        case "nsfw_h14":
            made = nsfw_h14()
        case _:
            made = Standardised()
    for tensor in made.parameters():
        nn.init.normal_(tensor, std=0.7)  # so that every layer shows in the score
    return made.eval()


def vectors(num: int = 20) -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(num, DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


def source(path: Path, form: str, sha256: str = "") -> WeightsHead:
    weights = f"{path}@{sha256}" if sha256 else str(path)
    return WeightsHead.model_validate({"kind": "weights", "weights": weights, "form": form})


def values(head: Head) -> np.ndarray:
    return score(vectors(), {"nsfw": head})["nsfw"].to_numpy()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("form", ["linear", "aesthetic_v2", "nsfw_l14", "nsfw_h14"])
def test_published_formats(form: str, suffix: str, tmp_path: Path) -> None:
    module, file = published(form), tmp_path / f"head.{suffix}"
    if suffix == "pth":
        torch.save(module.state_dict(), file)
    else:
        save_file(module.state_dict(), file)
    with torch.inference_mode():
        expected = module(torch.from_numpy(vectors()).float())[:, 0].numpy()
    assert expected.std() > 0.01
    digest, _ = storage.sha256_file(str(file))
    head = load_head(source(file, form, digest))
    assert head.dim == DIM
    np.testing.assert_allclose(values(head), expected, rtol=1e-4, atol=1e-5)


def with_norm(name: str, value: float) -> dict[str, Tensor]:
    """The standardised head with one number of its mean or variance set."""
    state = {key: tensor.clone() for key, tensor in Standardised().state_dict().items()}
    state[f"norm.{name}"][3] = value
    return state


def test_files_that_are_no_such_head(tmp_path: Path) -> None:
    file = tmp_path / "head.pth"
    for form, state, says in (
        ("linear", aesthetic_v2().state_dict(), "no head of the form linear"),
        ("nsfw_l14", aesthetic_v2().state_dict(), "`mean` and one `variance`"),
        ("aesthetic_v2", Standardised().state_dict(), "no head of the form aesthetic_v2"),
        ("linear", nn.Linear(DIM, 2).state_dict(), "down to one number"),
        ("linear", {"weight": torch.zeros(1, DIM)}, "a bias for every layer"),
        ("linear", {"weight": torch.full((1, DIM), torch.nan), "bias": torch.zeros(1)}, "finite"),
        ("nsfw_l14", with_norm("mean", torch.nan), "finite"),
        ("nsfw_l14", with_norm("variance", torch.inf), "finite"),
        ("nsfw_l14", with_norm("variance", -0.5), "not negative"),
        ("aesthetic_v2", {**aesthetic_v2().state_dict(), "extra": torch.zeros(1)}, "nothing else"),
    ):
        torch.save(state, file)
        with pytest.raises(ModelError, match=says):
            load_head(source(file, form))
    torch.save(with_norm("variance", 0.0), file)  # of a number that never varied
    assert np.isfinite(values(load_head(source(file, "nsfw_l14")))).all()
    with pytest.raises(ModelError, match="No weights"):
        load_head(source(tmp_path / "none.pth", "linear"))
    with pytest.raises(ModelError, match="not the file that the config names"):
        load_head(source(file, "linear", "0" * 64))
    (tmp_path / "head.pkl").write_bytes(b"x")
    with pytest.raises(ModelError, match="safetensors"):
        load_head(source(tmp_path / "head.pkl", "linear"))


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spec of a small open_clip model with a text tower of CLIP's vocabulary."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-worded.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-worded.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-worded").state_dict(), folder / "weights.pt")
    return f"open_clip:tiny-worded/{folder / 'weights.pt'}"


def test_prompts_as_by_hand(tiny_clip: str) -> None:
    yes, no = ("a watermarked photo", "stock photo with a logo"), ("a photo",)
    head = load_prompts(parse_embedder(tiny_clip), PromptsHead(kind="prompts", like=yes, unlike=no))
    model, tokenizer = (
        open_clip.create_model("tiny-worded", tiny_clip.split("/", 1)[1], weights_only=True),
        open_clip.get_tokenizer("tiny-worded"),
    )
    with torch.inference_mode():
        classes = []
        for texts in (yes, no):
            made = model.encode_text(tokenizer(list(texts)))
            mean = (made / made.norm(dim=1, keepdim=True)).mean(dim=0)
            classes.append(mean / mean.norm())
        x = torch.from_numpy(vectors()).float()
        expected = (model.logit_scale.exp() * x @ torch.stack(classes).T).softmax(dim=1)[:, 0]
    np.testing.assert_allclose(values(head), expected, rtol=1e-3)


def config(spec: str, **heads: object) -> DescribeConfig:
    return DescribeConfig.model_validate(
        {"embed": {"embedder": spec, "compile": False, "device": "cpu"}, "heads": heads}
    )


def test_heads_fit_their_vectors_or_nothing_starts(tiny_clip: str, tmp_path: Path) -> None:
    for dim in (DIM, DIM + 1):
        torch.save(nn.Linear(dim, 1).state_dict(), tmp_path / f"{dim}.pth")
    table = {"key": ["a"], "embedding": pa.array([[1.0] * (DIM + 1)], pa.list_(pa.float32(), DIM + 1))}
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    right, wrong = (
        {"kind": "weights", "weights": str(tmp_path / f"{dim}.pth"), "form": "linear"}
        for dim in (DIM, DIM + 1)
    )
    words = {"kind": "prompts", "like": ["a"], "unlike": ["b"]}
    require_heads(config(tiny_clip, aesthetic=right, watermark=words))
    require_heads(config(f"precomputed:{tmp_path / 'v.parquet'}", nsfw=wrong))
    with pytest.raises(ConfigError, match=r"heads\.nsfw does not fit.*17 numbers, and vectors of 16"):
        require_heads(config(tiny_clip, nsfw=wrong))
    with pytest.raises(ConfigError, match=r"16 numbers, and vectors of 17"):
        require_heads(config("gist", nsfw=right, embedder=f"precomputed:{tmp_path / 'v.parquet'}"))
    assert sorted(load_heads(config(tiny_clip, aesthetic=right, watermark=words))) == [
        "aesthetic",
        "watermark",
    ]


def test_identity_is_of_bytes_and_words(tiny_clip: str, tmp_path: Path) -> None:
    torch.save(nn.Linear(DIM, 1).state_dict(), tmp_path / "one.pth")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "two.pth").write_bytes((tmp_path / "one.pth").read_bytes())

    def of(path: Path, **more: object) -> dict[str, object]:
        head = {"kind": "weights", "weights": str(path), "form": "linear"}
        return heads_identity(config(tiny_clip, nsfw=head, **more))

    assert of(tmp_path / "one.pth") == of(tmp_path / "moved" / "two.pth")
    words = {"kind": "prompts", "like": ["a"], "unlike": ["b"]}
    assert of(tmp_path / "one.pth", watermark=words) != of(tmp_path / "one.pth")
    assert str(tmp_path) not in json.dumps(of(tmp_path / "one.pth", watermark=words))
