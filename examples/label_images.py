"""Labels a folder of images without training: prints every label's probability for each image, then the winner.

    python examples/label_images.py photos/
    python examples/label_images.py photos/ --labels dog cat "a crowd of people" --model openai/clip-vit-large-patch14

With CLIP, a probability is the softmax over the labels of the model's logit scale times the cosine of image and label.
"""

import argparse
import tempfile
from pathlib import Path

import clipsieve

LABELS = ["Hero", "Adele", "Zombie", "Painting", "Villain", "Water"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="searched with its subfolders")
    parser.add_argument("--labels", nargs="+", default=LABELS, help="two or more texts (default: %(default)s)")
    parser.add_argument("--template", default="a photo of a {}", help="the sentence a label stands in; {} for none")
    parser.add_argument("--model", default="openai/clip-vit-base-patch32", help="hub id, folder, or demo")
    asked = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        run = clipsieve.label(
            {"path": asked.folder, "format": "folder"}, labels=asked.labels, templates=[asked.template], all=True,
            model=asked.model, out=Path(folder) / "run",
        )  # fmt: skip
        for image in run.ledger.to_pylist():
            print(image["reference"])
            if image["error"]:
                print(f"  {image['error']}\n")
                continue
            for each in image["label_probabilities"]:
                print(f"  {each['probability']:8.3%}  {each['label']}")
            print(f"  It is: {image['label']}\n")


if __name__ == "__main__":
    try:
        main()
    except clipsieve.ClipsieveError as failure:
        raise SystemExit(f"label_images: {failure}") from None
