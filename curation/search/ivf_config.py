"""What a user says of FAISS's lists, and the index it comes to. Apart from the code, slow to import."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from curation.search.cells_config import default_num_cells

Codes = Literal["flat", "sq8", "pq"]
FaissDevice = Literal["cpu", "gpu"]


class IvfConfig(BaseModel):
    """Which FAISS index of inverted lists is built, and how it is searched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codes: Literal["auto", "flat", "sq8", "pq"] = Field(
        "auto",
        description="how a vector is stored: flat (fp16, nothing lost), sq8 (a byte a dimension), pq "
        "(product quantisation); auto: the first that fits memory_bytes",
    )
    memory_bytes: int = Field(
        8 << 30,
        ge=1 << 20,
        description="for the codes of one shard; its vectors are held beside them, 2 bytes a number",
    )
    shard_rows: int = Field(10_000_000, ge=1, description="rows of a shard, the unit of work and resume")
    num_lists: int | None = Field(None, ge=1, description="inverted lists; null: 4·√N of a shard's rows")
    num_probes: int = Field(32, ge=1, description="lists that a query visits")
    pq_bytes: int = Field(64, ge=1, description="bytes of a vector's product code; divides the dimension")
    refine: int = Field(
        4, ge=1, description="candidates of lossy codes, as a multiple of k, that are scored exactly"
    )
    sample_rows_per_list: int = Field(64, ge=1, description="rows a list to train on")
    device: FaissDevice = Field("cpu", description="where FAISS searches; gpu needs faiss-gpu")
    min_recall: float = Field(
        0.95,
        gt=0,
        le=1,
        description="share of the nearest images that must be found, measured on sampled queries against the "
        "whole pool; a run that finds less is refused",
    )
    recall_rows: int = Field(512, ge=2, le=1 << 20, description="queries sampled to measure recall")

    def lists_of(self, num_rows: int) -> int:
        """Lists of the index of a pool of so many rows."""
        return self.num_lists or default_num_cells(min(self.shard_rows, num_rows))


@dataclass(frozen=True)
class IvfSpec:
    """The index that a config comes to for a pool of a certain size."""

    codes: Codes
    num_lists: int
    num_probes: int
    pq_bytes: int
    refine: int

    def factory(self) -> str:
        """FAISS's name of it."""
        match self.codes:
            case "flat":
                return f"IVF{self.num_lists},SQfp16"  # vectors are stored in fp16: nothing is lost
            case "sq8":
                return f"IVF{self.num_lists},SQ8"
            case "pq":
                # np: not polysemous, which nobody asks for and which takes 3 s of annealing a byte.
                return f"IVF{self.num_lists},PQ{self.pq_bytes}np"
