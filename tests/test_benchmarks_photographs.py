"""`python -m benchmarks.photographs` without its network."""

import numpy as np
import pytest
import torch

from benchmarks.photographs import Rows
from vqprior.configs.errors import UserError


def test_rows_are_looked_at_once_and_grey_ones_as_colour(tmp_path):
    looked: list[int] = []

    def see(pictures: torch.Tensor) -> torch.Tensor:
        looked.append(len(pictures))
        return pictures.float().mean((2, 3))

    grey = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 1, 4, 4), np.uint8)
    for run in ("one", "other"):
        (tmp_path / run / "evaluation").mkdir(parents=True)
        np.save(tmp_path / run / "evaluation" / "test-0123.npy", grey)
    np.save(tmp_path / "other" / "evaluation" / "samples-4567.npy", grey + 1)
    rows = Rows(3, see)
    expected = torch.arange(3.0)[:, None].expand(3, 3)
    assert torch.equal(rows.features(tmp_path / "one", "test"), expected)
    assert torch.equal(rows.features(tmp_path / "other", "test"), expected)
    assert torch.equal(rows.features(tmp_path / "other", "samples"), expected + 1)
    assert looked == [3, 3]  # what both runs have is the same row
    with pytest.raises(UserError, match=r"keeps no row 'samples'; measure it first: vqprior evaluate"):
        rows.features(tmp_path / "one", "samples")
