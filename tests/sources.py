"""Sources of pictures for tests: opened, counted, refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from vqprior.configs import UserError
from vqprior.configs.schema import Data
from vqprior.runtime.data import open_source
from vqprior.runtime.data.source import Source


def opened(root: Path, **settings: object) -> Source:
    return open_source(replace(Data(root=str(root)), **settings))


def sizes(source: Source) -> tuple[int, int | None, int | None]:
    held_out = (source.validation, source.test)
    return len(source.train), *(None if part is None else len(part) for part in held_out)


def refused(root: Path, *words: str, **settings: object) -> None:
    with pytest.raises(UserError) as caught:
        opened(root, **settings)
    for word in words:
        assert word in str(caught.value)
