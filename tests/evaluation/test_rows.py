import pytest
import torch

from vqprior.configs.errors import UserError
from vqprior.evaluation.rows import keep_row


def numbered(at: torch.Tensor) -> torch.Tensor:
    """Images that say which they are."""
    return at[:, None, None, None].expand(-1, 3, 2, 4).to(torch.uint8).contiguous()


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_a_row_holds_each_image_once_whatever_the_batch(tmp_path, batch):
    asked = []
    row = keep_row(tmp_path, "row", {"a": 1}, lambda at: asked.append(len(at)) or numbered(at), count=11, batch=batch)
    assert set(asked) == {batch}
    assert torch.equal(row(torch.arange(11)), numbered(torch.arange(11)))
    assert torch.equal(row(torch.tensor([7, 2, 7])), numbered(torch.tensor([7, 2, 7])))


def test_a_row_is_made_once_and_makes_room_for_one_of_other_settings(tmp_path):
    def fail(at: torch.Tensor) -> torch.Tensor:
        raise AssertionError("made again")

    keep_row(tmp_path, "row", {"a": 1}, numbered, count=5, batch=2)
    keep_row(tmp_path, "other", {"a": 1}, numbered, count=5, batch=2)
    assert torch.equal(keep_row(tmp_path, "row", {"a": 1}, fail, count=5, batch=2)(torch.arange(5)), numbered(torch.arange(5)))
    keep_row(tmp_path, "row", {"a": 2}, numbered, count=6, batch=2)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_row_that_failed_is_not_there(tmp_path):
    def fail(at: torch.Tensor) -> torch.Tensor:
        if at[-1] > 2:
            raise UserError("no more")
        return numbered(at)

    with pytest.raises(UserError, match="no more"):
        keep_row(tmp_path, "row", {}, fail, count=9, batch=2)
    assert not list(tmp_path.glob("*.npy"))
    row = keep_row(tmp_path, "row", {}, numbered, count=9, batch=2)
    assert torch.equal(row(torch.arange(9)), numbered(torch.arange(9))) and len(list(tmp_path.iterdir())) == 1
