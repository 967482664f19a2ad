"""Where an exact search runs. Apart from the code that searches, which takes seconds to import."""

from typing import Literal

Device = Literal["cpu", "cuda"]
