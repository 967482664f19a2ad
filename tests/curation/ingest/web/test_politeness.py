"""How often a host is asked: the files that all processes share."""

from pathlib import Path

import pytest

from curation.ingest.web.politeness import HostLimits


@pytest.mark.parametrize("name", ["turns", "clocks"])
def test_a_link_is_not_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"dear")
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts" / name).symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        HostLimits(tmp_path / "hosts", max_requests=1, max_per_host=1, per_s=None, give_up_after=1)
    assert (tmp_path / "victim").read_bytes() == b"dear"
