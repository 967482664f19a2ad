"""An image tower of torch behind the embedder contract: normalise, forward, unit rows, in one fixed shape."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float16, Float32, UInt8
from torch import Tensor, nn

from curation.describe.embed import unit_rows
from curation.describe.fast_vit import use_bmm_attention
from curation.errors import ModelError
from curation.pictures.views import View


class NormalisedTower(nn.Module):
    """Bytes in, fp32 features out: (pixels / 255 - mean) / std, tower in its own dtype, head in fp32."""

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        tower: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        dtype: torch.dtype,
        *,
        head: nn.Module | None,
    ) -> None:
        super().__init__()
        self.tower = tower.to(dtype)
        self.head = nn.Identity() if head is None else head.float()
        self.dtype = dtype
        centre, spread = torch.tensor([mean, std], dtype=torch.float64).view(2, 3, 1, 1)
        self.register_buffer("scale", (1 / (255 * spread)).float())
        self.register_buffer("shift", (-centre / spread).float())

    def forward(self, pixels: UInt8[Tensor, "n s s 3"]) -> Float32[Tensor, "n d"]:
        """Features of a batch of views."""
        # The permuted view is channels-last in memory, which is what oneDNN's patch convolution wants.
        image = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift
        features: Tensor = self.head(self.tower(image.to(self.dtype)).float())
        return features


class TorchEmbedder:
    """An `Embedder` over an image tower that gives features (n, d), alone or with a head.

    Args:
        name: the spec it was built from.
        tower: the module, with its weights; it is put into eval mode, cast to `dtype` and moved.
        view: what the tower's own preprocessing does to a picture's geometry.
        mean, std: of its input, for pixels in 0–1.
        dtype, compile_, batch_rows, threads, device: as in `EmbedConfig`, resolved.
        head: what makes features (n, d) of the tower's output; in fp32 whatever the dtype, for pooled powers
            and a whitening lose in bf16, and it costs little.

    Raises:
        ModelError: the tower's output is not finite features (n, d).
    """

    def __init__(
        self,
        name: str,
        tower: nn.Module,
        *,
        view: View,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        dtype: Literal["fp32", "bf16"],
        compile_: bool,
        batch_rows: int,
        threads: int,
        device: str,
        head: nn.Module | None = None,
    ) -> None:
        self.name = name
        self.view = view
        self.batch_rows = batch_rows
        self._threads = threads
        self._device = torch.device(device)
        tower = tower.eval().requires_grad_(False)
        if device == "cpu" and dtype == "bf16":
            use_bmm_attention(tower)
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        module = NormalisedTower(tower, mean, std, kind, head=head)
        module = module.eval().requires_grad_(False).to(self._device)
        self._forward = torch.compile(module, dynamic=False) if compile_ else module
        # Frozen weights are prepacked for oneDNN once. The tracer reads this from the global config, not from
        # the options of compile, and it traces in the probe. One compiler thread: a worker
        # shall leave no pool of compiling processes behind. The default mode chooses no kernel by its timing.
        # Imported here: it takes seconds, which nobody shall wait for who compiles nothing.
        from torch._inductor import config as inductor_config

        with inductor_config.patch(freezing=True, compile_threads=1):
            self.dim = self._probe()

    def embed(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float16[np.ndarray, "n d"]:
        """Unit rows of `batch_rows` views, rounded to fp16 last; zeros where there is no finite vector."""
        return unit_rows(self._features(pixels))

    def _features(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float32[np.ndarray, "n d"]:
        side_px = self.view.side_px
        assert pixels.shape == (self.batch_rows, side_px, side_px, 3), pixels.shape
        torch.set_num_threads(self._threads)  # each time: the setting is the process's, not ours
        batch = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        with torch.inference_mode():
            features: np.ndarray = self._forward(batch.to(self._device)).cpu().numpy()
        return features

    def _probe(self) -> int:
        side_px = self.view.side_px
        ramp = np.linspace(0, 255, self.batch_rows * side_px * side_px * 3).astype(np.uint8)
        try:
            features = self._features(ramp.reshape(self.batch_rows, side_px, side_px, 3))
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"The forward of {self.name} does not fit the device",
                got=f"batch_rows {self.batch_rows}",
                remedy="Set a smaller batch_rows (it is part of what is computed)",
            ) from error
        if features.ndim != 2 or not np.isfinite(features).all():
            raise ModelError(
                f"{self.name} gives no usable features",
                got=f"shape {features.shape}, finite: {np.isfinite(features).all()}",
                expected="finite numbers, one row an image",
                remedy="Check the weights, or set dtype to fp32",
            )
        return int(features.shape[1])
