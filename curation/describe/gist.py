import numpy as np
from jaxtyping import Float16, UInt8

from curation.describe.views import View


class Gist:
    view = View(64, "squash", "bilinear")
    dim = 1024

    def embed(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float16[np.ndarray, "n d"]:
        raise NotImplementedError
