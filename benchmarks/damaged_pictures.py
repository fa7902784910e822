"""Pictures of many kinds, cut or with bytes flipped: each is read, or refused in words; never a traceback.

    python -m benchmarks.damaged_pictures                          5,000 files, evenly over the kinds
    python -m benchmarks.damaged_pictures --files 100000 --seed 1

Kinds that this Pillow cannot write (AVIF in a small build) are left out. libtiff prints complaints itself.
Exits with code 1 if anything but Unreadable was raised.
"""

import argparse
import io
import sys
import warnings
from collections import Counter

import numpy as np
from PIL import Image, features

from vqprior.configs.schema import Data
from vqprior.runtime.data.decode import Unreadable, decode, facts
from vqprior.runtime.data.transform import least_size, prepare

DATA = Data(size=(16, 16))
SIZE = 48


def kinds(chance: np.random.Generator) -> dict[str, bytes]:
    """One sound picture of each kind, encoded."""
    noise = chance.integers(0, 256, (SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    colour = Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    grey = np.asarray(colour.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "JPEG, EXIF": _encoded(colour, "JPEG", exif=exif),
        "MPO, two frames": _encoded(colour, "MPO", exif=exif, save_all=True, append_images=[colour]),
        "PNG": _encoded(colour, "PNG"),
        "PNG, palette": _encoded(colour.convert("P"), "PNG", transparency=3),
        "PNG, 16 bits": _encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "GIF, animated": _encoded(colour, "GIF", save_all=True, append_images=[colour.rotate(90)]),
        "BMP": _encoded(colour, "BMP"),
        "TIFF, LZW": _encoded(colour, "TIFF", compression="tiff_lzw"),
        "TIFF, float": _encoded(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"),
        "WebP": _encoded(colour, "WEBP"),
        "PPM": _encoded(colour, "PPM"),
        "ICO": _encoded(colour, "ICO"),
        "npy, uint8": _npy(np.asarray(colour)),
        "npy, float": _npy(grey.astype(np.float32) / 255),
    }
    if features.check("avif"):
        made["AVIF"] = _encoded(colour, "AVIF")
    return made


def _encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def damaged(content: bytes, chance: np.random.Generator) -> bytes:
    """Cut at a random place, or with one to eight bytes flipped."""
    if chance.random() < 0.3:
        return content[: chance.integers(0, len(content))]
    flipped = bytearray(content)
    # Half of the flips in the first 200 bytes, where the header is
    within = min(200, len(content)) if chance.random() < 0.5 else len(content)
    for place in chance.integers(0, within, chance.integers(1, 9)):
        flipped[place] ^= int(chance.integers(1, 256))
    return bytes(flipped)


def outcome(content: bytes) -> str:
    """What becomes of one picture."""
    try:
        facts(content, "it")
        prepare(decode(content, "it", least=least_size(DATA)), DATA)
    except Unreadable:
        return "refused"
    except Exception as error:  # what this benchmark is for
        return f"{type(error).__name__}: {error}"
    return "read"


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--files", type=int, default=5000, help="how many in all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    chance = np.random.default_rng(arguments.seed)
    sound = kinds(chance)
    counts: dict[str, Counter[str]] = {name: Counter() for name in sound}
    for index in range(arguments.files):
        name = list(sound)[index % len(sound)]
        counts[name][outcome(damaged(sound[name], chance))] += 1
    print(f"{'kind':<16}{'read':>8}{'refused':>10}{'tracebacks':>12}")
    errors: Counter[str] = Counter()
    for name, found in counts.items():
        others = {words: count for words, count in found.items() if words not in ("read", "refused")}
        errors.update(others)
        print(f"{name:<16}{found['read']:>8}{found['refused']:>10}{sum(others.values()):>12}")
    for words, count in errors.most_common(20):
        print(f"{count:>6}  {words[:120]}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
