"""What a run lacks is said before any image is read, with the field and what comes near."""

import sys
from pathlib import Path
from typing import Any

import pytest

from curation.errors import ConfigError, LvdError, ModelError
from pipelines.config.run_config import validate
from pipelines.engine.lock import lock
from pipelines.models.preflight import require_needed
from pipelines.run import run


def describe(**fields: Any) -> Any:
    web = {"role": "uncurated", "sources": [{"kind": "folder", "path": "/nowhere"}]}
    return validate({"pools": {"web": web}, "describe": fields}, where="here").describe


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        (
            {"embed": {"embedder": "timm:vit_smal_patch14_dinov2"}},
            ConfigError,
            ["describe.embed.embedder: timm has no model", "vit_small_patch14_dinov2"],
        ),
        (
            {"embed": {"embedder": "open_clip:ViT-B-23/openai"}},
            ConfigError,
            ["describe.embed.embedder: open_clip has no model", "ViT-B-32"],
        ),
        (
            {"embed": {"embedder": "open_clip:ViT-B-32/laion2b_s34b"}},
            ModelError,
            ["describe.embed.embedder: no weights", "Expected: laion2b_s34b_b79k"],
        ),
        (
            {"embed": {"embedder": "timm:resnet50@/nowhere.pth"}},
            ModelError,
            ["describe.embed.embedder: no weights. Got: /nowhere.pth"],
        ),
        ({"descriptor": "sscd:/nowhere.pt"}, ModelError, ["describe.descriptor: ", "/nowhere.pt"]),
    ],
)
def test_models_are_known(fields: dict[str, Any], kind: type[LvdError], said: list[str]) -> None:
    with pytest.raises(kind) as caught:
        require_needed(describe(**fields))
    for part in said:
        assert part in str(caught.value)


def test_a_missing_faiss_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    require_needed(describe())
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"FAISS, which is not installed.*pip install 'lvd\[cpu\]'"):
        require_needed(describe())


def test_a_run_begins_with_it(tmp_path: Path) -> None:
    web = {"role": "uncurated", "sources": [{"kind": "folder", "path": "/nowhere"}]}
    data = {"run_dir": str(tmp_path / "run"), "pools": {"web": web}, "executor": {"kind": "local"}}
    data["describe"] = {"embed": {"embedder": "timm:no_such_model"}}
    with pytest.raises(ConfigError, match=r"describe\.embed\.embedder"):
        run(validate(data, where="here"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["/proc/nope/run", "file", "file/run"])
def test_a_run_dir_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"run_dir cannot be written: .*--set run_dir") as caught,
        lock(str(tmp_path / place)),
    ):
        pass
    assert caught.value.exit_code == 2
