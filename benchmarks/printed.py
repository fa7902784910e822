"""The commands that a document prints, run as they are printed: for the pictures that it shows."""

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
IMAGES = DOCS / "images"


def commands(document: Path) -> list[list[str]]:
    """The words behind `vqprior` of each line of a document that begins with it, as a block of code has it;
    lines that end in a backslash are joined with the next."""
    text = re.sub(r"\\\n\s*", " ", document.read_text())
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (vqprior .*)", text, re.M)]


def run_commands(document: Path, folder: Path, names: Mapping[str, str] | None = None) -> None:
    """Run the commands of a document in a folder, in order; what is done there already is passed over.

    Args:
        names: what stands for words of the document, such as PHOTOS.

    Raises:
        CalledProcessError: a command failed, and has said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for words in commands(document):
        words = [(names or {}).get(word, word) for word in words]
        print("$ vqprior", shlex.join(words), flush=True)
        subprocess.run([sys.executable, "-m", "vqprior", *words], cwd=folder, check=True)
