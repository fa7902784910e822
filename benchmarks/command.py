"""What benchmarks that train runs share: commands of vqprior, and their own way out."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vqprior.configs.errors import UserError
from vqprior.runtime.files import write_file


def vqprior(*arguments: object) -> None:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "vqprior", *map(str, arguments)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True)


def share_classifiers(measured: Path, run: Path) -> None:
    """Copy the classifiers of real images from a run that was measured to another one of the same pictures;
    their names tell what they learnt from."""
    for row in ("all", "train"):
        for file in measured.glob(f"evaluation/classifier-{row}-*"):
            target = run / file.relative_to(measured)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_file(target, file.read_bytes())


def program(name: str, main: Callable[[], None]) -> None:
    """A benchmark as a program: what is refused is said in one line, exit code 2; a command that failed has
    said why itself."""
    try:
        main()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
