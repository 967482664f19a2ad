"""The page in a real browser: it renders, and its content security policy has nothing to refuse."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.report.write import write_report

# What headless Chromium needs in a container, and what keeps it from calling home.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--enable-logging=stderr",
)


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium")
    return found


def visit(chromium: str, page: Path, folder: Path, *more: str) -> tuple[np.ndarray, list[str]]:
    """A screenshot of the page, and what the browser says on its console."""
    shot = folder / "shot.png"
    arguments = [chromium, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--screenshot={shot}", *more]
    done = subprocess.run(
        [*arguments, page.resolve().as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"))
    return pixels, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_renders_without_a_complaint(chromium: str, rich_run: Path, tmp_path: Path) -> None:
    page = Path(write_report(str(rich_run)))
    pixels, console = visit(chromium, page, tmp_path, "--window-size=1200,2400")
    assert console == []
    assert (pixels[0, 0] == (251, 250, 247)).all()  # the style sheet was let in
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    assert len(colours) > 1000  # and so were the pictures
    beyond = pixels[:, -8:].reshape(-1, 3)
    assert (beyond == pixels[0, 0]).all(), "something is wider than the page"


@pytest.mark.accept
def test_fits_a_narrow_screen(chromium: str, rich_run: Path, tmp_path: Path) -> None:
    page = Path(write_report(str(rich_run)))
    pixels, console = visit(chromium, page, tmp_path, "--window-size=500,2000")
    assert console == []
    assert (pixels[:, -8:] == pixels[0, 0]).all()


@pytest.mark.accept
def test_policy_refuses_what_slips_in(chromium: str, rich_run: Path, tmp_path: Path) -> None:
    html = Path(write_report(str(rich_run))).read_text("utf-8")
    bad = (
        '<script>document.title = "x"</script><img src="http://127.0.0.1:9/x.png"><p style="color:red">x</p>'
    )
    page = tmp_path / "bad.html"
    page.write_text(html.replace("<main>", f"<main>{bad}"), "utf-8")
    _, console = visit(chromium, page, tmp_path, "--window-size=600,600")
    refused = " ".join(console)
    for kind in ("inline script", "127.0.0.1:9", "inline style"):
        assert kind in refused
