"""Models that libraries know by name: said before anything is built, with what comes near."""

from pathlib import Path

import pytest

from curation.describe.embed import parse_embedder
from curation.errors import ConfigError, ModelError
from pipelines.models.known_models import is_file, require_model


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("timm:vit_smal_patch16_224", "vit_small_patch16_224"),
        ("open_clip:ViT-B-23/openai", "ViT-B-32"),
    ],
)
def test_an_unknown_model_is_told_with_what_comes_near(spec: str, near: str) -> None:
    with pytest.raises(ConfigError, match="has no model of this name") as raised:
        require_model(parse_embedder(spec))
    assert near in str(raised.value.expected)


@pytest.mark.parametrize("spec", ["gist", "timm:vit_small_patch16_224", "open_clip:ViT-B-32/openai"])
def test_what_is_known_by_name_needs_no_file(spec: str) -> None:
    require_model(parse_embedder(spec))
    assert not is_file(parse_embedder(spec))


@pytest.mark.parametrize("library", ["timm:vit_small_patch16_224@", "open_clip:ViT-B-32/"])
def test_a_file_must_be_there_and_of_a_kind_that_is_read(tmp_path: Path, library: str) -> None:
    for name in ("weights.onnx", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    for name, said in (("gone.pt", "No weights"), ("weights.onnx", "no kind of weights file")):
        spec = parse_embedder(f"{library}{tmp_path / name}")
        assert is_file(spec)
        with pytest.raises(ModelError, match=said):
            require_model(spec)
    require_model(parse_embedder(f"{library}{tmp_path / 'weights.safetensors'}"))
