"""Names that settings had before: old presets, runs and checkpoints are read with them, and hands that know
them heeded."""

from collections.abc import Sequence

FORMER = {
    "--sample.n": "--sample.images",
    "--n": "--images",  # torchrun takes it for one of its own flags
    "--stage1.codebook": "--stage1.quantizer",  # until November 2026, when it became the name of a section
    "--stage1.decay": "--stage1.codebook.decay",
    "--stage1.restart": "--stage1.codebook.restart",
    "--stage1.kmeans": "--stage1.codebook.kmeans",
    "--stage1.normalize": "--stage1.codebook.normalize",
    "--stage2.kernel": "--stage2.gated_pixelcnn.kernel",
    "--stage2.head": "--stage2.gated_pixelcnn.head",
    "--stage2_fine.kernel": "--stage2_fine.gated_pixelcnn.kernel",
    "--stage2_fine.head": "--stage2_fine.gated_pixelcnn.head",
}


def renamed(flags: Sequence[str]) -> list[str]:
    """Flags with the names of today in place of former ones, as `--n 3` or `--n=3`."""
    words = []
    for flag in flags:
        name, equals, value = flag.partition("=")
        words.append(FORMER.get(name, name) + equals + value)
    return words
