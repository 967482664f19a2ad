"""Heads made of words, by the text tower of an open_clip model. It runs once, when a head is loaded.

open_clip takes seconds to import, and heads of weights have no need of it.
"""

import torch

from curation.describe.embed import EmbedderSpec
from curation.describe.heads import Head, compare
from curation.describe.heads_config import PromptsHead
from pipelines.models.embedders import LOAD_ERRORS, create_open_clip, no_fit

MAX_SCALE = 100.0  # to which CLIP's training clips the logit scale


def embedding_dim(spec: EmbedderSpec) -> int:
    """Length of an open_clip model's embedding, from its architecture alone."""
    import open_clip

    config = open_clip.get_model_config(spec.model)
    assert config is not None, "an embedder whose architecture was checked"
    return int(config["embed_dim"])


def load_prompts(spec: EmbedderSpec, source: PromptsHead) -> Head:
    """Embed the texts and make a head of them.

    Args:
        spec: of open_clip; its image tower makes the vectors to be scored.
        source: the texts.

    Raises:
        ModelError: weights or tokenizer cannot be loaded.
    """
    import open_clip

    model = create_open_clip(spec).eval()
    try:
        tokenizer = open_clip.get_tokenizer(spec.model)
    except LOAD_ERRORS as error:
        raise no_fit(spec, error) from error
    torch.set_num_threads(1)  # the order of sums depends on it
    with torch.inference_mode():
        like, unlike = (
            model.encode_text(tokenizer(list(texts)), normalize=True).float()
            for texts in (source.like, source.unlike)
        )
        scale = float(model.logit_scale.exp().max())
    return compare(like, unlike, scale=min(scale, MAX_SCALE))
