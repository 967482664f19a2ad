"""How images are fetched from the web: what is sent, what is honoured, and the limits."""

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

MAX_URL_CHARS = 4096  # a longer one is no address of an image
# Images of one unit, with what lies beside them; while they are staged they are on the disk twice.
MAX_UNIT_BYTES = 64 << 30


def _network(text: str) -> str:
    ip_network(text)  # raises a ValueError that says what is wrong
    return text


class DownloadConfig(BaseModel, frozen=True, extra="forbid"):
    """How images are fetched from the web, and which are left alone."""

    user_agent: str = Field(
        "lvd-image-downloader/1.0",
        pattern=r"^[A-Za-z_-]+(/[!-~]+)?( [ -~]+)?$",
        description="what every request says it is: say who you are and how to reach you; its name, up to "
        "the slash, is looked for in robots.txt and X-Robots-Tag",
    )
    honour_robots: bool = Field(True, description="whether robots.txt (RFC 9309) is asked for and obeyed")
    honour_opt_outs: bool = Field(
        True,
        description="whether images are left out whose answer has X-Robots-Tag noai, noimageai, noindex, "
        "noimageindex or none, or TDM-Reservation 1",
    )
    blocked_domains: tuple[str, ...] = Field(
        (), description="files with a domain a line, which is not asked for images, nor is what lies below it"
    )
    allow_private: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (),
        description="networks such as 10.0.0.0/8 that may be asked though they are not public; where there "
        "are any, so may names without a dot",
    )
    max_requests: int = Field(256, ge=1, le=4096, description="requests under way at once in one worker")
    max_requests_per_host: int = Field(
        4, ge=1, description="requests under way at once to one host, by all workers of a machine"
    )
    host_requests_per_s: float | None = Field(
        None, gt=0, description="requests to one host a second, by all workers of a machine; null: no limit"
    )
    connect_s: float = Field(10.0, gt=0, description="seconds until a connection stands")
    read_s: float = Field(15.0, gt=0, description="seconds without a byte until an answer is given up")
    total_s: float = Field(60.0, gt=0, description="seconds that one request may take, redirects apart")
    max_image_bytes: int = Field(
        50_000_000, ge=1, description="bytes; the reading of a larger answer is broken off"
    )
    max_redirects: int = Field(5, ge=0, le=20, description="redirects that are followed, each one checked")
    num_retries: int = Field(
        2, ge=0, le=10, description="times that a request is made again after a failure that may pass"
    )
    backoff_s: float = Field(
        1.0, ge=0, description="seconds before the first retry, doubled with each, times 0.5 to 1.5 at random"
    )
    max_retry_after_s: float = Field(
        60.0, ge=0, description="seconds; a host that asks to be left alone for longer is given up"
    )
    give_up_host_after: int = Field(
        10,
        ge=1,
        description="connection failures and timeouts of a host in a row, after which the rest of "
        "a unit's URLs there are not asked for",
    )
