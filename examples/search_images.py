"""Searches images by text: encodes a folder once into an index, then finds the images nearest to what is asked.

    python examples/search_images.py "two dogs on a beach" --folder photos/    # encodes the images, and asks
    python examples/search_images.py "a red car" "snow"                        # asks again: only texts are encoded

The index is LanceDB files. ``--index chdb:///data/images`` keeps it in ClickHouse's engine in this process, and
``--index clickhouse://user:password@host:8123/db.images`` on a ClickHouse server. Each needs its extra:
pip install 'clipsieve[search]' or 'clipsieve[clickhouse]'.
"""

import argparse
import tempfile
from pathlib import Path

import clipsieve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", nargs="+", help="what to look for, one text or more")
    parser.add_argument("--folder", help="the images to encode first, with all subfolders")
    parser.add_argument("--index", default="images.index", help="a path or a URL (default: %(default)s)")
    parser.add_argument("--model", default="openai/clip-vit-base-patch32", help="of --folder: hub id, folder, or demo")
    parser.add_argument("-k", type=int, default=5, help="how many images to show (default: %(default)s)")
    asked = parser.parse_args()

    if asked.folder:
        images = {"path": asked.folder, "format": "folder"}
        with tempfile.TemporaryDirectory() as folder:
            run = clipsieve.run(read=images, model=asked.model, vectors=True, out=Path(folder) / "run")
            done, failed = clipsieve.index_run(run, asked.index), run.counts.images.failed
        print(f"{done.images:,} images encoded, {failed:,} cannot be read; {done.rows:,} in {asked.index}\n")

    with clipsieve.Index.open(asked.index) as index:  # knows its model, and loads it for the first query
        for query in asked.query:
            print(query)
            for image in index.search(text=query, k=asked.k).to_pylist():
                print(f"  {image['similarity']:6.3f}  {image['reference']}")
            print()


if __name__ == "__main__":
    try:
        main()
    except clipsieve.ClipsieveError as failure:
        raise SystemExit(f"search_images: {failure}") from None
