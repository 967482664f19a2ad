"""OpenCV's detectors: a drawn face, faces in real photographs, files that are none, OpenCV missing."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="needs OpenCV (the extra `faces`)")

from drawn_face import draw_face
from tiny_yunet import tiny_yunet

from curation.describe.describe import DescribeConfig, describe
from curation.describe.faces import FacesConfig
from curation.errors import ConfigError, ModelError
from pipelines.models.face_detectors import faces_identity, load_faces

CONFIG = FacesConfig()


def holds(box: np.ndarray, x: float, y: float) -> bool:
    return bool(box[0] < x < box[0] + box[2] and box[1] < y < box[1] + box[3])


def test_finds_a_drawn_face_where_it_is() -> None:
    detector = load_faces(CONFIG)
    found = detector.find(draw_face())
    assert len(found) == 1
    assert holds(found[0], 160, 160)
    assert found[0, 4] > 0
    # Four times as large it is searched at the same size, and told in its own pixels.
    large = np.asarray(Image.fromarray(draw_face()).resize((1920, 1920)))
    boxes = detector.find(large)
    assert any(holds(box, 960, 960) and 400 < box[2] < 1300 for box in boxes)


def test_finds_nothing_on_a_wall_or_beyond_the_score() -> None:
    assert load_faces(CONFIG).find(np.full((200, 300, 3), 128, np.uint8)).shape == (0, 5)
    assert load_faces(FacesConfig(min_score=1e6)).find(draw_face()).shape == (0, 5)
    assert load_faces(FacesConfig(min_face_px=310)).find(draw_face()).shape == (0, 5)


def test_threads_find_the_same() -> None:
    detector, faces = load_faces(CONFIG), [draw_face(320, size) for size in (120, 150, 180)] * 3
    alone = [detector.find(face).tobytes() for face in faces]
    together: dict[int, bytes] = {}

    def work(number: int) -> None:
        together[number] = detector.find(faces[number]).tobytes()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(faces))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(len(faces))] == alone


def test_describe_gives_boxes_of_the_original(tmp_path: Path) -> None:
    Image.fromarray(draw_face()).resize((1280, 1280)).save(tmp_path / "face.jpg", quality=90)
    files = [b"", (tmp_path / "face.jpg").read_bytes(), b"no image"]
    made = describe(
        3,
        files.__getitem__,
        embedder=None,
        descriptor=None,
        config=DescribeConfig(faces=CONFIG),
        faces=load_faces(CONFIG),
    )
    assert made.faces is not None
    rows = made.faces.to_pylist()
    assert {row["row"] for row in rows} == {1}
    assert any(row["left"] < 640 < row["left"] + row["width"] and row["width"] > 250 for row in rows)


def test_faces_in_real_photographs(shared_dir: Path) -> None:
    """Everyday photographs of 224 px, of which a few show an upright face."""
    folder = shared_dir / "real" / "pool" / "photos"
    detector = load_faces(CONFIG)
    found = 0
    for path in sorted(folder.iterdir())[:60]:
        with Image.open(path) as image:
            found += len(detector.find(np.array(image.convert("RGB")))) > 0
    assert found >= 3


def test_a_yunet_from_a_file(tmp_path: Path) -> None:
    """Red squares are faces to it: found in their place, in RGB, in the picture's own pixels."""
    file = tmp_path / "tiny.onnx"
    file.write_bytes(tiny_yunet())
    detector = load_faces(FacesConfig(model=str(file)))
    picture = np.full((1280, 1920, 3), 110, np.uint8)
    picture[640:900, 320:580] = (250, 20, 20)
    picture[100:400, 1200:1500] = (20, 20, 250)  # blue is nobody's face: the order of channels is right
    found = detector.find(picture)
    assert len(found) > 0
    centres = found[:, :2] + found[:, 2:4] / 2
    assert (np.abs(centres - (450, 770)) < 260).all()
    assert ((found[:, 4] > 0.6) & (found[:, 4] <= 1)).all()
    assert detector.find(np.full((300, 200, 3), 110, np.uint8)).shape == (0, 5)


def test_files_that_are_no_detector(tmp_path: Path) -> None:
    for name, says in (("none.onnx", "No weights"), ("model.pt", "onnx")):
        if name != "none.onnx":
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ModelError, match=says):
            load_faces(FacesConfig(model=str(tmp_path / name)))
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a network")
    with pytest.raises(ModelError, match="no face detector that OpenCV can read"):
        load_faces(FacesConfig(model=str(bad)))
    with pytest.raises(ModelError, match="not the file that the config names"):
        load_faces(FacesConfig(model=f"{bad}@{'0' * 64}"))


def test_identity_is_of_settings_and_bytes(tmp_path: Path) -> None:
    one, moved = tmp_path / "one.onnx", tmp_path / "moved.onnx"
    one.write_bytes(b"1")
    moved.write_bytes(b"1")
    assert faces_identity(FacesConfig(model=str(one))) == faces_identity(FacesConfig(model=str(moved)))
    assert faces_identity(FacesConfig(model=str(one))) != faces_identity(CONFIG)
    assert faces_identity(FacesConfig(min_face_px=30)) != faces_identity(CONFIG)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"lvd\[faces\]"):
        load_faces(CONFIG)
