"""The visual concepts of the demo's synthetic web, as a table.

A concept is a *scene* (what lies behind), a *motif* (what is seen), a *layout* (where the motifs stand) and
its colours. Everything else of a picture is chance (see `pictures.py`), so two pictures of one concept share
palette and composition, as two photographs of poppies do, and are never copies of each other.
"""

from dataclasses import dataclass
from typing import Literal

Scene = Literal[
    "field", "peaks", "sea", "night", "deep", "room", "plain", "bricks", "tiles", "paper", "cloth"
]
Layout = Literal["ground", "scatter", "grid", "stand"]
Motif = Literal[
    "balloon", "bars", "bird", "boat", "butterfly", "cactus", "car", "cup", "dot", "fish", "flower", "gem",
    "house", "jellyfish", "kite", "leaf", "lighthouse", "mushroom", "note", "pine", "star", "text", "tower",
    "trace",
]  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """One visual concept."""

    name: str
    scene: Scene
    layout: Layout
    motif: Motif
    counts: tuple[int, int]  # fewest and most motifs in a picture
    sizes: tuple[float, float]  # radius of a motif, as a share of the short side
    behind: str  # three hex colours: top, bottom, ground
    front: str  # three hex colours of the motifs


# In the order of how common they are in the synthetic web, before it is shuffled by the seed.
# fmt: off
CONCEPTS: tuple[Concept, ...] = (
    Concept("poppies", "field", "ground", "flower", counts=(9, 20), sizes=(0.05, 0.15),
            behind="8ecae6 f4ede0 5a8f3c", front="e02d3c c1121f f25c54"),
    Concept("sailing boats", "sea", "ground", "boat", counts=(2, 6), sizes=(0.10, 0.24),
            behind="bde0fe ffe5d9 2f6f9f", front="fffdf7 f28482 f6bd60"),
    Concept("city at night", "night", "ground", "tower", counts=(7, 13), sizes=(0.16, 0.42),
            behind="0b132b 3a506b 10151f", front="1c2541 232f52 ffd166"),
    Concept("aquarium", "deep", "scatter", "fish", counts=(4, 11), sizes=(0.06, 0.17),
            behind="48cae4 0077b6 e9d8a6", front="ff9f1c ffbf69 f94144"),
    Concept("oranges", "room", "ground", "dot", counts=(4, 9), sizes=(0.12, 0.22),
            behind="e9edc9 ccd5ae 7f5539", front="f77f00 fb8500 fcbf49"),
    Concept("snowy pines", "peaks", "ground", "pine", counts=(6, 14), sizes=(0.12, 0.30),
            behind="cfe3f2 f8f9fa e9eef2", front="1f5c4a 2d6a4f 40916c"),
    Concept("hot-air balloons", "peaks", "scatter", "balloon", counts=(3, 9), sizes=(0.07, 0.20),
            behind="ffb4a2 ffe5d9 b5838d", front="e63946 f1c453 457b9d"),
    Concept("newspapers", "paper", "grid", "text", counts=(10, 28), sizes=(0.05, 0.12),
            behind="f4f1e8 e8e3d3 d6d0bd", front="222222 3a3a3a 555555"),
    Concept("blue tiles", "tiles", "grid", "star", counts=(9, 30), sizes=(0.09, 0.14),
            behind="f8fbff d7e6f5 c2d8ee", front="1d4e89 2a6fb0 00307a"),
    Concept("desert cacti", "field", "ground", "cactus", counts=(3, 8), sizes=(0.14, 0.32),
            behind="f9c784 ffe8b6 d98b4a", front="3a7d44 588157 2f5d3a"),
    Concept("butterflies", "plain", "scatter", "butterfly", counts=(4, 10), sizes=(0.08, 0.18),
            behind="fff1c1 ffe08a f2c14e", front="7b2cbf 3a0ca3 ff6d00"),
    Concept("old town", "field", "ground", "house", counts=(4, 9), sizes=(0.16, 0.32),
            behind="a9d6e5 fdf0d5 b08968", front="e5989b f4a261 ffcb69"),
    Concept("sunflowers", "field", "ground", "flower", counts=(5, 12), sizes=(0.10, 0.22),
            behind="2a8bf2 a6d8ff 2f6b2f", front="ffc300 ffb000 ffd60a"),
    Concept("autumn leaves", "plain", "scatter", "leaf", counts=(14, 34), sizes=(0.08, 0.18),
            behind="6f3d1c 4a2511 8a5a2b", front="d62828 f77f00 fcbf49"),
    Concept("starry nights", "night", "scatter", "star", counts=(14, 40), sizes=(0.01, 0.06),
            behind="10002b 3c096c 0b0619", front="fff3b0 e0aaff ffffff"),
    Concept("mushrooms", "field", "ground", "mushroom", counts=(3, 8), sizes=(0.10, 0.26),
            behind="1b4332 40916c 3a2a1a", front="d00000 9d0208 e85d04"),
    Concept("coffee cups", "room", "ground", "cup", counts=(1, 4), sizes=(0.16, 0.32),
            behind="d6ccc2 e3d5ca 4a3222", front="fefae0 bc6c25 606c38"),
    Concept("kites", "field", "scatter", "kite", counts=(3, 9), sizes=(0.08, 0.20),
            behind="4cc9f0 caf0f8 84a98c", front="f72585 7209b7 ffea00"),
    Concept("birds at dusk", "field", "scatter", "bird", counts=(6, 20), sizes=(0.04, 0.13),
            behind="7b2d63 ff8c61 2b1a2f", front="1a0f1f 2b1a2f 120a16"),
    Concept("cars", "room", "ground", "car", counts=(2, 5), sizes=(0.14, 0.26),
            behind="ced4da e9ecef 343a40", front="d90429 1d4ed8 f4d35e"),
    Concept("snowflakes", "plain", "scatter", "star", counts=(10, 26), sizes=(0.05, 0.16),
            behind="1d3557 457b9d 6fa8cf", front="ffffff e8f7ff cfefff"),
    Concept("lighthouses", "sea", "stand", "lighthouse", counts=(1, 2), sizes=(0.24, 0.42),
            behind="5b6c8f f0b67f 22395b", front="fefefe d62828 ffe066"),
    Concept("gems", "plain", "scatter", "gem", counts=(5, 13), sizes=(0.08, 0.20),
            behind="7a1248 4a0a2c 2a0518", front="06d6a0 ffd6e7 118ab2"),
    Concept("graffiti", "bricks", "scatter", "text", counts=(3, 7), sizes=(0.12, 0.30),
            behind="b5523b 9c4632 d9c2b4", front="f5f749 2de1fc ff3cc7"),
    Concept("circuit boards", "plain", "scatter", "trace", counts=(14, 30), sizes=(0.08, 0.28),
            behind="0b5d1e 053b06 128c3a", front="e9c46a c0c0c0 1a1a1a"),
    Concept("jellyfish", "deep", "scatter", "jellyfish", counts=(2, 7), sizes=(0.08, 0.22),
            behind="5a189a 3c096c 240046", front="ff9ee5 e0aaff bde0fe"),
    Concept("sheet music", "paper", "scatter", "note", counts=(12, 30), sizes=(0.03, 0.06),
            behind="fffdf5 fbf6e3 c9c1a8", front="111111 2b2118 3d2b1f"),
    Concept("bar charts", "plain", "stand", "bars", counts=(1, 3), sizes=(0.22, 0.46),
            behind="ffffff f3f6fa dde5ee", front="4361ee f72585 4cc9f0"),
    Concept("tartan", "cloth", "scatter", "dot", counts=(0, 0), sizes=(0.02, 0.05),
            behind="7a1620 14342b c9a227", front="d4af37 f0ead2 10251c"),
    Concept("blueberries", "plain", "scatter", "dot", counts=(12, 30), sizes=(0.07, 0.15),
            behind="efe6f7 d8c7ea c4a9de", front="3d348b 5f4bb6 27215c"),
    Concept("draughts", "tiles", "grid", "dot", counts=(4, 12), sizes=(0.06, 0.11),
            behind="f0d9b5 b58863 6b4a2f", front="f7f3ea 2a2320 1b1715"),
    Concept("city in fog", "peaks", "ground", "tower", counts=(6, 12), sizes=(0.16, 0.40),
            behind="c9ced6 e6e3dd 9aa0a8", front="6c757d 868e96 adb5bd"),
    Concept("tulips", "room", "ground", "flower", counts=(6, 14), sizes=(0.08, 0.18),
            behind="fde2e4 fff1e6 5c8d4e", front="ff5d8f ff97b7 fb6f92"),
    Concept("book shelves", "room", "stand", "bars", counts=(3, 6), sizes=(0.16, 0.30),
            behind="5c4033 3e2723 7b5238", front="9b2226 ee9b00 0a9396"),
    Concept("ferns", "plain", "scatter", "leaf", counts=(10, 24), sizes=(0.12, 0.30),
            behind="e3f6cf b5e48c 99d98c", front="1b4332 2d6a4f 40916c"),
    Concept("bokeh", "night", "scatter", "dot", counts=(10, 26), sizes=(0.05, 0.17),
            behind="2b0a12 5c1a1b 0f0508", front="ffb703 fb8500 ff5d8f"),
    Concept("posters", "plain", "stand", "text", counts=(2, 5), sizes=(0.16, 0.40),
            behind="ff006e fb5607 ffbe0b", front="ffffff 14213d 3a0ca3"),
    Concept("red kites at sea", "sea", "scatter", "kite", counts=(2, 6), sizes=(0.08, 0.22),
            behind="e0fbfc 98c1d9 3d5a80", front="ee6c4d d62839 ba324f"),
)
# fmt: on
