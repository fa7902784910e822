import pytest
import torch

from tests.pretend_device import pretend
from vqprior.evaluation import ssim as module
from vqprior.evaluation.ssim import ssim


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_formula_at_each_window():
    """Equation 13 of Wang et al. 2004 with their 11x11 Gaussian window, one place after the other."""
    x, y = images(0, 2, 3, 14, 13).double(), images(1, 2, 3, 14, 13).double()
    line = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    w = line[:, None] * line / line.sum() ** 2
    for b in range(2):
        found = []
        for c in range(3):
            for i in range(4):
                for j in range(3):
                    p, q = x[b, c, i : i + 11, j : j + 11], y[b, c, i : i + 11, j : j + 11]
                    m, n = (w * p).sum(), (w * q).sum()
                    vp, vq, cov = (
                        (w * (p - m) ** 2).sum(),
                        (w * (q - n) ** 2).sum(),
                        (w * (p - m) * (q - n)).sum(),
                    )
                    found.append(
                        (2 * m * n + 1e-4) * (2 * cov + 9e-4) / ((m**2 + n**2 + 1e-4) * (vp + vq + 9e-4))
                    )
        assert ssim(x, y)[b].item() == pytest.approx(torch.stack(found).mean().item(), rel=1e-9)


@pytest.mark.parametrize("size", [(28, 28), (8, 9), (1, 5), (2, 2)])
def test_equal_images_have_1_and_the_order_does_not_matter(size):
    x, y = images(2, 3, 1, *size), images(3, 3, 1, *size)
    assert torch.allclose(ssim(x, x), torch.ones(3, dtype=torch.float64))
    assert torch.equal(ssim(x, y), ssim(y, x)) and (ssim(x, y) < 0.9).all()


def test_an_image_does_not_depend_on_the_others(monkeypatch):
    x, y = images(4, 7, 3, 16, 15), images(5, 7, 3, 16, 15)
    whole = ssim(x, y)
    for numbers in (1, 2 * 3 * 16 * 15, 10**6):
        monkeypatch.setitem(module.NUMBERS, "cpu", numbers)
        assert torch.equal(ssim(x, y), whole)
    assert torch.equal(ssim(x[2:4], y[2:4]), whole[2:4])


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_it_is_in_fp64_on_every_device_without_a_wait_for_each_window(kind):
    x, y = images(6, 3, 3, 16, 15), images(7, 3, 3, 16, 15)
    expected = ssim(x, y)
    with pretend(kind) as gpu:
        there = x.to(gpu.device), y.to(gpu.device)
        gpu.reset()
        found = ssim(*there)
        assert sum(gpu.waits.values()) == (0 if kind == "cuda" else 2)
        assert found.dtype == torch.float64 and torch.equal(found.cpu(), expected)
