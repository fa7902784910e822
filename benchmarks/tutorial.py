"""The pictures of docs/tutorial.md: python -m benchmarks.tutorial --data PHOTOS --out tutorial

PHOTOS is a folder of pictures with the splits and classes of clothing-dataset-small (alexeygrigorev, CC0,
https://github.com/alexeygrigorev/clothing-dataset-small), shorter side 128 pixels. Runs the commands that the
page prints, in OUT, where those that are done are passed over, and puts what they made into docs/images.
Needs the extra `report`.
"""

import argparse
from pathlib import Path

from PIL import Image

from .curves import BAD, BESIDE, GOOD, Line, Panel, draw
from .printed import DOCS, IMAGES, run_commands

PHOTO = "dress"  # the class of the picture that is completed, the first of test
MADE = {
    "check": "runs/clothes/check.png",
    "reconstructions": "runs/clothes/reconstructions.png",
    "samples": "runs/clothes/samples/grid.png",
    "completions": "runs/clothes/completions/photo/completions.png",
}
"""What is shown, and where the commands put it."""
CURVES = [
    Panel(
        "stage one",
        "mean squared error",
        [
            Line("validation", "clothes", "validation", "stage1/mse", BAD),
            Line("train, batches", "clothes", "", "stage1/mse", GOOD),
        ],
    ),
    Panel(
        "",
        "perplexity of 256 codes",
        [Line("validation", "clothes", "validation", "stage1_codes/perplexity", BAD)],
    ),
    Panel(
        "stage two",
        "bits/code",
        [
            Line("validation", "clothes", "validation", "stage2/bits_per_code", BAD),
            Line("train", "clothes", "", "stage2/bits_per_code", GOOD),
            Line("model by place", "clothes", "by_place", "stage2/bits_per_code", BESIDE),
        ],
    ),
]
WIDE = 900  # pixels of a shown picture, at most
QUALITY = 80  # of the JPEGs


def show(made: Path, file: Path) -> None:
    """A picture as a JPEG small enough for a page."""
    picture = Image.open(made).convert("RGB")
    picture.thumbnail((WIDE, 4 * WIDE))
    picture.save(file, quality=QUALITY, optimize=True)
    print(file, f"{file.stat().st_size / 1024:.0f} KB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    data, out = vars(parser.parse_args()).values()
    out.mkdir(parents=True, exist_ok=True)
    first = min((data / "test" / PHOTO).iterdir())
    Image.open(first).save(out / "photo.png")
    run_commands(DOCS / "tutorial.md", out, {"PHOTOS": str(data.resolve())})
    for name, place in MADE.items():
        show(out / place, IMAGES / f"tutorial_{name}.jpg")
    draw(IMAGES / "tutorial_curves.png", CURVES, out / "runs")


if __name__ == "__main__":
    main()
