"""OpenCV's face detectors: a YuNet from a file, or the cascade of Haar features of version 4."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from curation import storage
from curation.describe.faces import Boxes, FacesConfig, search_size
from curation.errors import ConfigError, ModelError
from curation.packages import needing
from pipelines.models.pinned_files import digest_of_pinned

CASCADE = "haarcascade_frontalface_default.xml"
# Each size of the search is 1.1 times the one before, and a face is what five neighbouring windows agree on.
SCALE_STEP, MIN_NEIGHBOURS = 1.1, 5
# Of boxes that overlap by more, YuNet's weaker ones go; so many candidates are looked at.
YUNET_OVERLAP, YUNET_CANDIDATES = 0.3, 5000
YUNET_MIN_SCORE = 0.6
NONE = np.zeros((0, 5), np.float32)


def faces_identity(config: FacesConfig) -> dict[str, object]:
    """What of a detector changes what it finds: the settings, and the bytes of its file.

    Raises:
        ConfigError: OpenCV is not there, or one without the cascade.
        ModelError: the file is not there, or not the one that was named.
    """
    digest = digest_of_pinned(config.path, config.sha256, suffixes=(".onnx",)) if config.path else None
    return config.model_dump(mode="json") | {"model": digest or storage.sha256_file(str(_cascade()))[0]}


def load_faces(config: FacesConfig) -> "FaceDetector":
    """The detector that a config names.

    Raises:
        ConfigError: OpenCV is not there, or one without the cascade.
        ModelError: the file is not there, cannot be read, or is not the one that was named.
    """
    cv2 = _opencv()
    # Both are the process's: what is found shall not depend on a number of threads or on a graphics driver.
    cv2.setNumThreads(1)
    cv2.ocl.setUseOpenCL(False)
    if config.path is None:
        return FaceDetector(config, lambda: _cascade_search(cv2, config))
    digest_of_pinned(config.path, config.sha256, suffixes=(".onnx",))
    return FaceDetector(config, lambda: _yunet_search(cv2, config))


Search = Callable[[UInt8[np.ndarray, "h w 3"]], Boxes]


class FaceDetector:
    """A `FaceFinder`: scales a picture down, searches it, and gives boxes in its own pixels.

    Args:
        config: sizes.
        new_search: builds what searches a picture; OpenCV's detectors keep state, so each thread has its own.
    """

    def __init__(self, config: FacesConfig, new_search: Callable[[], Search]) -> None:
        self.need_side_px = config.search_side_px
        self._new_search = new_search
        self._local = threading.local()
        self._mine()  # a file that is no detector is found out here

    def find(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Boxes:
        """The faces in a picture, RGB, upright, in its own pixels."""
        cv2 = _opencv()
        height, width = pixels.shape[:2]
        size = search_size(width, height, side_px=self.need_side_px)
        small = pixels if size == (width, height) else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        boxes = self._mine()(np.ascontiguousarray(small))
        scale = np.array([width / size[0], height / size[1]] * 2 + [1], np.float64)
        return (boxes * scale).astype(np.float32)

    def _mine(self) -> Search:
        if not hasattr(self._local, "search"):
            self._local.search = self._new_search()
        mine: Search = self._local.search
        return mine


def _cascade_search(cv2: Any, config: FacesConfig) -> Search:
    cascade = cv2.CascadeClassifier(str(_cascade()))
    min_score = config.min_score or 0.0

    def search(pixels: UInt8[np.ndarray, "h w 3"]) -> Boxes:
        boxes, _, weights = cascade.detectMultiScale3(
            cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY),
            scaleFactor=SCALE_STEP,
            minNeighbors=MIN_NEIGHBOURS,
            minSize=(config.min_face_px, config.min_face_px),
            outputRejectLevels=True,
        )
        if not len(boxes):
            return NONE
        found = np.column_stack([np.asarray(boxes), np.asarray(weights).reshape(-1)]).astype(np.float32)
        return found[found[:, 4] >= min_score]

    return search


def _yunet_search(cv2: Any, config: FacesConfig) -> Search:
    assert config.path is not None
    min_score = YUNET_MIN_SCORE if config.min_score is None else config.min_score
    try:
        model = cv2.FaceDetectorYN.create(
            config.path, "", (320, 320), min_score, YUNET_OVERLAP, YUNET_CANDIDATES
        )
    except cv2.error as error:
        raise ModelError(
            f"{config.path} is no face detector that OpenCV can read",
            got=" ".join(str(error).split())[:500],
            expected="a YuNet in ONNX (face_detection_yunet_*.onnx)",
            remedy="Fetch the file again, or leave describe.faces.model out for the cascade",
        ) from error

    def search(pixels: UInt8[np.ndarray, "h w 3"]) -> Boxes:
        height, width = pixels.shape[:2]
        model.setInputSize((width, height))
        _, found = model.detect(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        if found is None:
            return NONE
        boxes = np.asarray(found, np.float32)[:, [0, 1, 2, 3, 14]]  # between box and score: five landmarks
        return boxes[(boxes[:, 2:4] >= config.min_face_px).all(axis=1)]

    return search


def _cascade() -> Path:
    cv2 = _opencv()
    path = Path(cv2.data.haarcascades) / CASCADE if hasattr(cv2, "CascadeClassifier") else None
    if path is None or not path.is_file():
        raise ConfigError(
            "This OpenCV has no cascade for faces",
            got=f"OpenCV {cv2.__version__}",
            expected="version 4, which brings it along",
            remedy="pip install 'lvd[faces]', or give a YuNet as describe.faces.model",
        )
    return path


def _opencv() -> Any:
    with needing("describe.faces needs OpenCV", install="pip install 'lvd[faces]', or leave it out"):
        import cv2  # an extra
    return cv2
