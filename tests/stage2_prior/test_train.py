"""What the loop of stage two gives the prior to learn from."""

import torch

from tests.conftest import TINY, write_pictures
from tests.stage2_prior.test_pixelcnn import drawn
from vqprior import configs
from vqprior.runtime.codes import Codes
from vqprior.runtime.loader import batch_positions
from vqprior.stage2_prior.gated_pixelcnn.model import PixelCNN


def test_each_step_drops_other_channels_and_hides_other_labels(tmp_path, command, monkeypatch):
    seen, forward = [], PixelCNN.forward

    def watch(
        self: PixelCNN,
        codes: torch.Tensor,
        labels: torch.Tensor,
        above: Codes = (),
        dropped: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self.training:
            seen.append((labels, dropped))
        return forward(self, codes, labels, above, dropped)

    monkeypatch.setattr(PixelCNN, "forward", watch)
    flags = ["--stage2.dropout", 0.3, "--stage2.label_dropout", 0.5, "--seed", 3]
    pictures, run = write_pictures(tmp_path / "pictures"), tmp_path / "run"
    assert command("run", "folder", *TINY, *flags, "--data.root", pictures, "--out", run)[0] == 0
    settings = configs.parse(run / "config.yaml", []).stage2
    assert len(seen) == settings.steps
    for step, (_, kept) in enumerate(seen):
        assert torch.equal(
            kept.cpu(), drawn(settings, 3, batch_positions(step, settings.batch_size, slice(None)))
        )
    assert not torch.equal(seen[0][1], seen[1][1])
    hidden = torch.stack([labels == labels.max() for labels, _ in seen])  # the number after the last class
    assert 0 < hidden.float().mean() < 1 and not torch.equal(hidden[0], hidden[1])
