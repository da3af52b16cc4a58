"""Where shards are many or huge, and where files are in an object store: each against the usual, by ratio.

``python benchmarks/shards.py [IMAGES]`` runs blur over so many captioned photographs with their bytes written again, in
the usual shards, in shards of one sample, and in one shard of all, on the local engine and on Ray; and the
usual ones once more in a bucket, on both. The bucket is moto's server in a process of its own on the same cores: an
upper bound, for a store does not share the processor. Cases take turns; the median of the rounds counts.
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from _machine import machine
from memory import photographs

import clipsieve

ROOT = Path(__file__).parents[1]
IMAGES, ROUNDS, CORES = 2000, 3, 2
SHARDS = {
    "usual": {},
    "of one sample": {"shard_rows": 1},
    "one of all": {"shard_rows": 2**30, "shard_bytes": 2**40},
}
"""What the recipe says of the size of each."""
BUCKET = "clipsieve-benchmark"


def write(path: Path, count: int) -> None:
    """So many captioned photographs, a few different ones over and over, in one file."""
    rng = random.Random(0)
    found = photographs(20)
    rows = {"image": [found[n % 20] for n in range(count)], "text": [f"{rng.random()}" for _ in range(count)]}
    pq.write_table(pa.table(rows), path, row_group_size=64)


def case(engine: str, shards: str, source: str, out: str, options: str) -> dict[str, Any]:
    """Seconds and peak memory of a run, in this process; the cluster, where there is one, is started before."""
    if engine == "ray":
        import ray

        ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, object_store_memory=2**30)
        ray.get([ray.remote(num_cpus=1)(lambda: time.sleep(1)).remote() for _ in range(CORES)])  # processes are there
    began = time.perf_counter()
    run = clipsieve.run(
        read={"path": source, **SHARDS[shards]},
        keep=["blur >= 1"],
        write=f"webdataset:{out}/curated",
        out=f"{out}/run",
        engine=engine,
        storage_options=json.loads(options),
    )
    seconds = time.perf_counter() - began
    return {
        "image_ms": round(1000 * seconds / run.counts.images.total, 3),
        "shards": len(run.shards()),
        "peak_mb": peak_mb(),
    }


def peak_mb() -> int:
    """Of this process; without those of a cluster."""
    told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert told is not None
    return round(int(told[1]) / 1024)


def measured(*arguments: str) -> dict[str, Any]:
    """A case in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "case", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def bucket(source: Path) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """A server with a bucket that holds ``source``, and the options that lead to it."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )  # fmt: skip
    assert server.stdout is not None
    endpoint = server.stdout.readline().decode().strip()
    options = {"s3": {"endpoint_url": endpoint, "key": "k", "secret": "s"}}
    import s3fs

    files = s3fs.S3FileSystem(**options["s3"])
    files.mkdir(BUCKET)
    files.put(str(source), f"{BUCKET}/source.parquet")
    return server, options


SERVER = """
import sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(f"http://{host}:{port}", flush=True)
threading.Event().wait()
"""


def main(images: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = folder / "source.parquet"
        write(source, images)
        server, options = bucket(source)
        cases: dict[str, list[dict[str, Any]]] = {}
        try:
            for number in range(ROUNDS):
                for engine in ("local", "ray"):
                    for shards in SHARDS:
                        out = str(folder / f"{engine}-{shards}-{number}")
                        found = measured(engine, shards, str(source), out, "{}")
                        cases.setdefault(f"{engine}, {shards}", []).append(found)
                    remote = f"s3://{BUCKET}/{engine}-{number}"
                    found = measured(engine, "usual", f"s3://{BUCKET}/source.parquet", remote, json.dumps(options))
                    cases.setdefault(f"{engine}, in a bucket", []).append(found)
        finally:
            server.kill()
    usual = [one["image_ms"] for one in cases["local, usual"]]
    told = {
        name: {
            "shards": rounds[0]["shards"],
            "image_ms": statistics.median(one["image_ms"] for one in rounds),
            "of the usual": round(
                statistics.median(one["image_ms"] / base for one, base in zip(rounds, usual, strict=True)), 2
            ),
            "peak_mb": max(one["peak_mb"] for one in rounds),
        }
        for name, rounds in cases.items()
    }
    for name, found in told.items():
        print(f"{name:24} {found}")
    result = {
        "date": date.today().isoformat(),
        "machine": machine("clipsieve", "ray", "s3fs", "moto"),
        "images": images,
        "cases": told,
    }
    path = ROOT / "benchmarks" / "results" / f"{result['date']}-shards.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    if sys.argv[1:2] == ["case"]:
        print(json.dumps(case(*sys.argv[2:7])))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else IMAGES)
