"""How the gradient gets over the step, against the definitions."""

import pytest
import torch
from torch import Tensor

from vqprior import configs
from vqprior.configs.schema import Stage1
from vqprior.stage1_vqvae.quantizers import QUANTIZERS
from vqprior.stage1_vqvae.quantizers.carry import CARRIES, rotation, straight_through

EACH = pytest.mark.parametrize("carry", CARRIES.values(), ids=CARRIES)


def pair(D: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder outputs, code vectors and a gradient of theirs, [2, D, 3, 4] in fp64."""
    torch.manual_seed(0)
    z_e, z_q, gradient = torch.randn(3, 2, D, 3, 4, dtype=torch.float64)
    return z_e.requires_grad_(), z_q.requires_grad_(), gradient


def rotated_to(e: Tensor, q: Tensor) -> Tensor:
    """The matrix that turns e to the direction of q within their plane: Rodrigues' formula in D axes."""
    u = e / e.norm()
    cosine = u @ q / q.norm()
    v = q - (u @ q) * u
    v, sine = v / v.norm(), (1 - cosine**2).sqrt()
    plane = torch.outer(u, u) + torch.outer(v, v)
    return (
        torch.eye(len(e), dtype=e.dtype)
        + (cosine - 1) * plane
        + sine * (torch.outer(v, u) - torch.outer(u, v))
    )


@EACH
def test_the_value_is_the_code_vector_and_the_gradient_passes_it_by(carry):
    z_e, z_q, gradient = pair()
    carried = carry(z_e, z_q)
    assert torch.equal(carried, z_q)  # to the bit: what the codes are decoded from
    carried.backward(gradient)
    assert z_q.grad is None and z_e.grad.abs().min() > 0


def test_straight_through_the_gradient_is_as_it_comes():
    z_e, z_q, gradient = pair()
    straight_through(z_e, z_q).backward(gradient)
    assert torch.equal(z_e.grad, gradient)


@pytest.mark.parametrize("D", [2, 5, 64])
def test_rotation_is_the_matrix_that_takes_one_vector_to_the_other(D):
    """R turns e to q / ||q|| ||e|| and is a rotation; the gradient is its transpose, stretched."""
    z_e, z_q, gradient = pair(D)
    carried = rotation(z_e, z_q)
    assert torch.equal(carried, z_q)
    carried.backward(gradient)
    for image, row, column in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        at = (image, slice(None), row, column)
        e, q = z_e.detach()[at], z_q.detach()[at]
        R, scale = rotated_to(e, q), q.norm() / e.norm()
        assert torch.allclose(R @ e * scale, q) and torch.allclose(R @ R.T, torch.eye(D, dtype=R.dtype))
        assert torch.linalg.det(R) == pytest.approx(1)
        assert torch.allclose(z_e.grad[at], scale * R.T @ gradient[at])


@pytest.mark.parametrize("length", [0.0, 1e-30])
def test_rotation_of_nothing_leaves_no_nan(length):
    """Of a squared length that underflows, too, and towards a code that is long."""
    z_e = torch.full((1, 2, 1, 1), length, requires_grad=True)
    gradient = torch.tensor([0.3, -2.0]).view(1, 2, 1, 1)
    rotation(z_e, torch.full_like(z_e, 5.0).detach()).backward(gradient)
    assert torch.equal(z_e.grad, gradient)


def test_between_equal_vectors_rotation_is_straight_through():
    z_e, _, gradient = pair()
    rotation(z_e, z_e.detach()).backward(gradient)
    assert torch.allclose(z_e.grad, gradient)


@pytest.mark.parametrize("scale", [-1.0, -0.3, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_no_rotation_is_defined_the_gradient_goes_straight_through(scale, dtype):
    """Vectors that point away from each other, and encoder outputs of nothing."""
    _, z_q, gradient = (x.detach().to(dtype) for x in pair())
    z_e = (scale * z_q).requires_grad_()
    carried = rotation(z_e, z_q)
    carried.backward(gradient)
    assert torch.equal(carried, z_q) and torch.equal(z_e.grad, gradient)


@pytest.mark.parametrize("kind", ["ema", "gradient"])
def test_a_quantizer_carries_as_it_is_told(kind):
    torch.manual_seed(0)
    book = QUANTIZERS[kind].build(Stage1(K=6, D=3, quantizer=kind, gradient="rotation"))
    z = torch.randn(2, 3, 4, 5, requires_grad=True)
    out, weight = book(z), torch.randn(2, 3, 4, 5)
    assert torch.equal(out.z_q, book.embed(out.codes))
    (found,) = torch.autograd.grad((out.z_q * weight).sum(), z)
    (expected,) = torch.autograd.grad((rotation(z, book.embed(out.codes)) * weight).sum(), z)
    assert torch.equal(found, expected) and not torch.allclose(found, weight)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--stage1.D", "1"], "no direction to turn"),
        (["--stage1.quantizer", "fsq", "--stage1.fsq.levels", "8", "8", "8"], "quantizer fsq has no use"),
    ],
)
def test_rotation_is_refused_where_there_is_nothing_to_turn(flags, words, capsys):
    with pytest.raises(SystemExit):
        configs.parse(None, ["--stage1.gradient", "rotation", *flags])
    assert words in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
