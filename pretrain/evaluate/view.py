"""What a backbone is shown of a picture when it is measured."""

from curation.pictures.views import View

RESIZE = 256 / 224  # short side before the centre is cut, as in the official evaluation


def evaluation_view(side_px: int) -> View:
    """A centre crop after scaling the short side to 8/7 of it."""
    return View(side_px, "crop", "bicubic", round(side_px * RESIZE))
