"""Members a second of indexing a local tar into rows, against listing it with `tarfile`."""

import io
import json
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

from curation import storage
from curation.ingest.sources import TarSource
from curation.ingest.tars.tar_index import index_tar

NUM_SAMPLES, IMAGE_BYTES, ROUNDS = 10_000, 20_000, 5


def write_tar(path: Path) -> None:
    """Samples of an image and a json."""
    with tarfile.open(path, "w") as tar:
        for number in range(NUM_SAMPLES):
            for extension, num_bytes in (("jpg", IMAGE_BYTES), ("json", 100)):
                member = tarfile.TarInfo(f"{number:07}.{extension}")
                member.size = num_bytes
                tar.addfile(member, io.BytesIO(bytes(num_bytes)))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tar"
        write_tar(path)
        info, source = storage.stat(str(path)), TarSource(path=str(path))
        ours_s, reference_s = [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            assert len(index_tar(info, source).table) == NUM_SAMPLES
            ours_s.append(time.perf_counter() - start)
            start = time.perf_counter()
            with tarfile.open(path) as tar:
                assert sum(1 for _ in tar) == 2 * NUM_SAMPLES
            reference_s.append(time.perf_counter() - start)
    rate, reference_rate = (2 * NUM_SAMPLES / statistics.median(s) for s in (ours_s, reference_s))
    print(
        json.dumps(
            {
                "what": "index a local tar into rows",
                "size": 2 * NUM_SAMPLES,
                "rate": round(rate),
                "unit": "members/s",
                "reference": "tarfile, members listed only",
                "reference_rate": round(reference_rate),
                "ratio": round(rate / reference_rate, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
