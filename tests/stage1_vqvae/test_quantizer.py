import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from vqprior.runtime.randomness import generator
from vqprior.stage1_vqvae.quantizers import codebook as codebooks
from vqprior.stage1_vqvae.quantizers.codebook import EMACodebook, GradientCodebook, kmeans, nearest_codes

CODEBOOKS = {"ema": EMACodebook, "gradient": GradientCodebook}

BOTH = pytest.mark.parametrize("kind", sorted(CODEBOOKS))


def move(book, vectors, codes, step: int, unsound: torch.Tensor | None = None) -> torch.Tensor:
    """One step of a codebook on one process, as the loop does it."""
    drawn = torch.randint(len(vectors), (book.K,), generator=generator(step))
    return book.update(book.observe(vectors, codes, drawn), unsound)


def flat(z: torch.Tensor) -> torch.Tensor:
    return rearrange(z, "b d h w -> (b h w) d")


def test_nearest_code_is_that_of_brute_force(monkeypatch):
    monkeypatch.setattr(codebooks, "DISTANCES", 7 * 11)  # several chunks
    vectors, codebook = torch.randn(50, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64)
    distances = (vectors[:, None] - codebook[None]).norm(dim=2)
    assert torch.equal(nearest_codes(vectors, codebook), distances.argmin(1))


@BOTH
def test_quantized_is_the_nearest_code_vector_at_each_place(kind):
    book = CODEBOOKS[kind](6, 3)
    z_e = torch.randn(2, 3, 4, 5)
    out = book(z_e)
    assert torch.allclose(out.z_q, book.embed(out.codes), atol=1e-6)
    expected = torch.cdist(flat(z_e), book.vectors()).argmin(1).view(2, 4, 5)
    assert torch.equal(out.codes, expected)


@BOTH
def test_gradient_goes_straight_through(kind):
    book = CODEBOOKS[kind](6, 3)
    z_e = torch.randn(2, 3, 4, 5, requires_grad=True)
    weight = torch.randn(2, 3, 4, 5)
    (book(z_e).z_q * weight).sum().backward()
    assert torch.equal(z_e.grad, weight)


def test_each_loss_moves_its_own_side_only():
    """Equation 3: sg[z_e] in the codebook term, sg[e] in the commitment term."""
    book = GradientCodebook(6, 3)
    z_e = torch.randn(2, 3, 4, 5, requires_grad=True)
    book(z_e).terms["codebook"].backward()
    assert z_e.grad is None and book.embedding.grad.abs().sum() > 0
    book.embedding.grad = None
    out = book(z_e)
    out.terms["commitment"].backward()
    assert z_e.grad.abs().sum() > 0 and book.embedding.grad is None
    assert torch.allclose(out.terms["codebook"], F.mse_loss(book.embed(out.codes), z_e))


@BOTH
def test_forward_changes_no_state(kind):
    book = CODEBOOKS[kind](6, 3).train()
    before = {name: value.clone() for name, value in book.state_dict().items()}
    book(torch.randn(2, 3, 4, 5))
    assert all(torch.equal(value, before[name]) for name, value in book.state_dict().items())


def test_ema_against_an_example_by_hand():
    """Two codes in one dimension, gamma 1/2, started at usage 1 each."""
    book = EMACodebook(2, 1, decay=0.5, restart=0)
    book.embedding.copy_(torch.tensor([[0.0], [10.0]]))
    book.usage.fill_(1.0)
    book.sums.copy_(book.embedding)
    vectors = torch.tensor([[1.0], [2.0], [3.0], [11.0]])
    move(book, vectors, torch.tensor([0, 0, 0, 1]), 0)
    # N = (1+3)/2 = 2, (1+1)/2 = 1; m = (0+6)/2 = 3, (10+11)/2 = 10.5; e = m / N
    assert torch.allclose(book.usage, torch.tensor([2.0, 1.0]))
    assert torch.allclose(book.embedding, torch.tensor([[1.5], [10.5]]))


def test_an_ema_code_that_nothing_chooses_stays_in_place():
    book = EMACodebook(2, 1, decay=0.5, restart=0)
    book.embedding.copy_(torch.tensor([[0.0], [10.0]]))
    for step in range(40):
        move(book, torch.tensor([[1.0]]), torch.tensor([0]), step)
    assert torch.allclose(book.embedding, torch.tensor([[1.0], [10.0]]), atol=1e-3)


def test_a_gradient_codebook_moves_in_no_update_but_for_restarts():
    book = GradientCodebook(4, 2, restart=0)
    before = book.embedding.detach().clone()
    move(book, torch.randn(9, 2), torch.randint(4, (9,)), 0)
    assert torch.equal(book.embedding, before)


@BOTH
def test_dead_codes_are_restarted_on_encoder_outputs(kind):
    book = CODEBOOKS[kind](4, 2, decay=0.5, restart=0.1)
    vectors = torch.randn(30, 2)
    for step in range(12):
        codes = torch.arange(30) % 3  # code 3 is never chosen
        before = book.embedding.detach().clone()
        if move(book, vectors, codes, step) > 0:
            break
    else:
        pytest.fail("no code was restarted")
    assert (vectors == book.embedding[3]).all(1).any()
    assert not torch.equal(book.embedding[3], before[3])
    if kind == "gradient":
        assert torch.equal(book.embedding[:3], before[:3])


@BOTH
def test_several_processes_update_like_one(kind):
    """Each of three processes holds a third of the vectors; all get the sum of what the three saw."""
    vectors, codes = torch.randn(30, 2, dtype=torch.float64), torch.randint(3, (30,))
    one = CODEBOOKS[kind](8, 2, restart=0.2).double()
    many = [CODEBOOKS[kind](8, 2, restart=0.2).double() for _ in range(3)]
    for book in many:
        book.load_state_dict(one.state_dict())
    for step in range(60):
        move(one, vectors, codes, step)
        drawn = torch.randint(30, (8,), generator=generator(step))
        parts = [slice(rank * 10, rank * 10 + 10) for rank in range(3)]
        saw = [
            book.observe(vectors[p], codes[p], drawn, rank, 3) for rank, (book, p) in enumerate(zip(many, parts, strict=True))
        ]
        for book in many:
            book.update(sum(saw))
    for book in many:
        for name, value in one.state_dict().items():
            assert torch.allclose(book.state_dict()[name], value, atol=1e-12), name


@BOTH
def test_an_unsound_step_moves_nothing_and_a_sound_one_what_it_would_have(kind):
    """Where the host runs ahead a tensor decides, whatever numbers the step is made of."""
    vectors, codes = torch.randn(20, 2), torch.randint(3, (20,))
    book, free = (CODEBOOKS[kind](4, 2, restart=0.5) for _ in range(2))
    free.load_state_dict(book.state_dict())
    before = {name: value.clone() for name, value in book.state_dict().items()}
    move(book, vectors * float("nan"), codes, 0, torch.tensor(1.0))
    assert all(torch.equal(value, before[name]) for name, value in book.state_dict().items())
    move(book, vectors, codes, 0, torch.tensor(0.0))
    move(free, vectors, codes, 0)
    assert all(torch.equal(value, free.state_dict()[name]) for name, value in book.state_dict().items())
    assert not torch.equal(book.usage, before["usage"])


def test_kmeans_finds_separated_clusters():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = torch.cat([c + 0.1 * torch.randn(50, 2) for c in centres])
    for seed in range(20):
        found = kmeans(vectors, 3, generator(seed))
        if torch.cdist(centres, found).amin(1).max() < 0.1:
            return
    pytest.fail("no start of twenty found the clusters")


def test_kmeans_with_fewer_vectors_than_codes():
    assert kmeans(torch.randn(3, 2), 8, generator(0)).isfinite().all()


@BOTH
def test_normalized_codes_compare_directions(kind):
    book = CODEBOOKS[kind](6, 3, normalize=True)
    z_e = torch.randn(2, 3, 4, 5)
    out, scaled = book(z_e), book(z_e * 7)
    assert torch.equal(out.codes, scaled.codes)
    assert torch.allclose(out.z_q.norm(dim=1), torch.ones(2, 4, 5), atol=1e-5)
    similarity = F.normalize(flat(z_e), dim=1) @ F.normalize(book.embedding, dim=1).T
    assert torch.equal(out.codes.flatten(), similarity.argmax(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_distances_are_in_fp32_at_least(dtype):
    book = EMACodebook(6, 3).to(torch.promote_types(dtype, torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = book(torch.randn(1, 3, 4, 5).to(dtype))
    assert out.z_q.dtype == out.terms["commitment"].dtype == torch.promote_types(dtype, torch.float32)
