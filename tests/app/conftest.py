"""Runs of every kind to play with: of one level, of two, without classes, of imported codes."""

import pytest

from tests.app.studios import SIZE, studio_of
from tests.sampling.tiny import tiny_generator
from vqprior import Generator
from vqprior.app.studio import Studio
from vqprior.runtime.codes import Level
from vqprior.sampling.decoding import Imported


@pytest.fixture(scope="session")
def one() -> Studio:
    return studio_of(tiny_generator(size=SIZE))


@pytest.fixture(scope="session")
def two() -> Studio:
    return studio_of(tiny_generator(size=SIZE, levels=2))


@pytest.fixture(scope="session")
def plain() -> Studio:
    """Without classes."""
    return studio_of(tiny_generator(size=SIZE, classes=0))


@pytest.fixture(scope="session")
def imported(one) -> Studio:
    return studio_of(Generator(Imported([Level(7, 4, 6)]), one.networks.priors, "abc"))


@pytest.fixture(params=["one", "two", "plain", "imported"])
def studio(request) -> Studio:
    return request.getfixturevalue(request.param)
