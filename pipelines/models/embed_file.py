"""The vector of a single file, made as describe makes it."""

import numpy as np
from jaxtyping import Float16

from curation.describe.embed import EmbedConfig, Embedder
from curation.describe.gist import Gist
from curation.errors import ConfigError, SourceError
from curation.pictures.decode import DecodeConfig, decode
from curation.pictures.resample import resize
from curation.pictures.views import by_torch, render
from pipelines.engine.step import environment_kept, set_threads


def embed_file(
    data: bytes, config: EmbedConfig, *, threads: int, decoding: DecodeConfig, path: str
) -> Float16[np.ndarray, " d"]:
    """The unit vector of a picture.

    Args:
        data: of its file.
        config: the model; run on this machine, whatever machine made the vectors of the run.
        threads: of the forward.
        decoding: caps of the decoder.
        path: for errors.

    Raises:
        ConfigError: the vectors of the run were made elsewhere, so no model is known.
        SourceError: the file cannot be decoded, or the model makes nothing of it.
    """
    # The gist needs no torch, whose import takes longer than all else here.
    model, scale = (Gist(), resize) if config.embedder == "gist" else (_load(config, threads), by_torch)
    decoded = decode(data, need_side_px=model.view.need_side_px, config=decoding)
    if decoded.pixels is None:
        raise SourceError(f"{path} cannot be decoded", got=decoded.reason, expected="a picture")
    # A forward has one shape: the other slots stay empty.
    batch = np.zeros((model.batch_rows, model.view.side_px, model.view.side_px, 3), np.uint8)
    batch[0] = render(decoded.pixels, model.view, resize=scale)
    vector: np.ndarray = model.embed(batch)[0]
    if not vector.any():
        raise SourceError(f"{path} gives no vector", got=f"zeros from {config.embedder}")
    return vector


@environment_kept()
def _load(config: EmbedConfig, threads: int) -> Embedder:
    from pipelines.models.embedders import load_embedder  # torch: seconds, which a gist does not wait for

    set_threads(threads)
    # One picture: compiling would take longer than the forward. Its last bits may differ from the run's.
    model = load_embedder(config.model_copy(update={"compile": False}), threads=threads)
    if model is None:
        raise ConfigError(
            "No model is known that makes vectors like this run's",
            got=config.embedder,
            remedy="Search by an image of the run, with --id, or by a file that it has read",
        )
    return model
