"""Properties of every quantizer, and of those with a codebook."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from vqprior.configs.schema import FSQ, Codebook, Stage1
from vqprior.runtime.randomness import generator
from vqprior.stage1_vqvae.quantizers import QUANTIZERS, Quantizer, build
from vqprior.stage1_vqvae.quantizers import lookup as module
from vqprior.stage1_vqvae.quantizers.codebook import kmeans
from vqprior.stage1_vqvae.quantizers.ema import EMACodebook
from vqprior.stage1_vqvae.quantizers.gradient import GradientCodebook
from vqprior.stage1_vqvae.quantizers.lookup import nearest_codes

RESIDUAL = [f"{kind} residual" for kind in sorted(QUANTIZERS)]
ALL = pytest.mark.parametrize("kind", [*sorted(QUANTIZERS), *RESIDUAL])
ONE_CODE = pytest.mark.parametrize("kind", sorted(QUANTIZERS))
CODEBOOKS = {"gradient": GradientCodebook, "ema": EMACodebook}
BOTH = pytest.mark.parametrize("kind", sorted(CODEBOOKS))
D = 3


def codes_of(kind: str) -> int:
    """K of `built`: of lfq as many as three bits make."""
    return 8 if kind.startswith("lfq") else 30


def built(kind: str, **codebook: float) -> Quantizer:
    """30 or 8 codes of 3 numbers, under the settings of a run; `KIND residual` has two codes a vector."""
    name, _, residual = kind.partition(" ")
    settings = Stage1(
        K=codes_of(kind),
        D=D,
        quantizer=name,
        codebook=Codebook(**codebook) if name in CODEBOOKS else Codebook(),
        fsq=FSQ((5, 2, 3)) if name == "fsq" else FSQ(),
        codes_per_position=2 if residual else 1,
        residual=bool(residual),
    )
    torch.manual_seed(0)
    return build(settings)


def chosen(book: Quantizer, vectors: int, codes: int) -> torch.Tensor:
    """Codes of so many vectors, below a number, those of each side by side."""
    return torch.randint(codes, (vectors * book.codes_per_vector,))


def move(book, vectors, codes, step: int, unsound: torch.Tensor | None = None) -> torch.Tensor:
    """One step of a quantizer on one process, as the loop does it."""
    draws = book.K * book.codes_per_vector
    drawn = torch.randint(len(vectors), (draws,), generator=generator(step))
    return book.update(book.observe(vectors, codes, drawn), unsound)


def flat(z: torch.Tensor) -> torch.Tensor:
    return rearrange(z, "b d h w -> (b h w) d")


def every_vector(book: Quantizer) -> torch.Tensor:
    """The vectors of all codes, [K, D], with n codes a vector [K^n, D]."""
    numbers = torch.cartesian_prod(*[torch.arange(book.K)] * book.codes_per_vector)
    return flat(book.embed(numbers.view(-1, 1, book.codes_per_vector)))


def test_nearest_code_is_that_of_brute_force(monkeypatch):
    monkeypatch.setattr(module, "CACHED", 7 * 11 // torch.get_num_threads())  # several chunks
    vectors, codebook = torch.randn(50, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64)
    distances = (vectors[:, None] - codebook[None]).norm(dim=2)
    assert torch.equal(nearest_codes(vectors, codebook), distances.argmin(1))


@ALL
def test_a_quantizer_has_as_many_codes_as_asked_for_all_different(kind):
    book = built(kind)
    K, vectors = codes_of(kind), every_vector(book)
    assert (book.K, book.D) == (K, D) and vectors.shape == (K**book.codes_per_vector, D)
    assert len(vectors.unique(dim=0)) == len(vectors)


@ALL
def test_the_codes_decode_to_what_was_quantized(kind):
    book = built(kind)
    out = book(2 * torch.randn(2, D, 4, 5))
    assert out.codes.shape == (2, 4, 5 * book.codes_per_vector) and out.codes.dtype == torch.int64
    assert out.codes.min() >= 0 and out.codes.max() < book.K
    assert torch.allclose(out.z_q, book.embed(out.codes), atol=1e-6)


@ONE_CODE
def test_quantized_is_the_nearest_code_vector_at_each_place(kind):
    book = built(kind)
    out = book(2 * torch.randn(2, D, 4, 5))
    expected = torch.cdist(flat(out.z_e), every_vector(book)).argmin(1).view(2, 4, 5)
    assert torch.equal(out.codes, expected)


@ALL
def test_gradient_goes_straight_through(kind):
    book = built(kind)
    z = torch.randn(2, D, 4, 5, requires_grad=True)
    out, weight = book(z), torch.randn(2, D, 4, 5)
    (through,) = torch.autograd.grad((out.z_q * weight).sum(), out.z_e, retain_graph=True)
    assert torch.equal(through, weight)  # once, however many codes add up
    (to_encoder,) = torch.autograd.grad((out.z_q * weight).sum(), z)
    (expected,) = torch.autograd.grad((book(z).z_e * weight).sum(), z)
    assert torch.equal(to_encoder, expected) and to_encoder.abs().min() > 0


def test_each_loss_moves_its_own_side_only():
    """VQ-VAE, Equation 3: sg[z_e] in the codebook term, sg[e] in the commitment term."""
    book = GradientCodebook(6, 3)
    z_e = torch.randn(2, 3, 4, 5, requires_grad=True)
    book(z_e).terms["codebook"].backward()
    assert z_e.grad is None and book.embedding.grad.abs().sum() > 0
    book.embedding.grad = None
    out = book(z_e)
    out.terms["commitment"].backward()
    assert z_e.grad.abs().sum() > 0 and book.embedding.grad is None
    assert torch.allclose(out.terms["codebook"], F.mse_loss(book.embed(out.codes), z_e))


def test_a_quantizer_without_a_term_has_no_such_key():
    expected = {
        "ema": {"commitment"},
        "fsq": set(),
        "gradient": {"codebook", "commitment"},
        "lfq": {"commitment", "vector_entropy", "codes_entropy"},
        "simvq": {"codebook", "commitment"},
    }
    assert {kind: {*built(kind)(torch.randn(2, D, 4, 5)).terms} for kind in QUANTIZERS} == expected


@ALL
def test_forward_changes_no_state(kind):
    book = built(kind).train()
    tensors = {**book.state_dict(), **dict(book.named_buffers())}
    before = {name: value.clone() for name, value in tensors.items()}
    book(torch.randn(2, D, 4, 5))
    assert all(torch.equal(value, before[name]) for name, value in tensors.items())


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


@ALL
def test_several_processes_update_like_one(kind):
    """Each of three processes holds a third of the vectors; all get the sum of what the three saw."""
    one = built(kind, restart=0.2).double()
    many = [built(kind, restart=0.2).double() for _ in range(3)]
    vectors, codes = torch.randn(30, D, dtype=torch.float64), chosen(one, 30, 3)
    for step in range(60):
        move(one, vectors, codes, step)
        drawn = torch.randint(30, (one.K * one.codes_per_vector,), generator=generator(step))
        parts = zip(many, vectors.chunk(3), codes.chunk(3), strict=True)
        saw = [book.observe(*part, drawn, rank, 3) for rank, (book, *part) in enumerate(parts)]
        for book in many:
            book.update(sum(saw))
    for book in many:
        for name, value in one.state_dict().items():
            assert torch.allclose(book.state_dict()[name], value, atol=1e-12), name


@ALL
def test_an_unsound_step_moves_nothing_and_a_sound_one_what_it_would_have(kind):
    """Where the host runs ahead a tensor decides, whatever numbers the step is made of."""
    book, free = built(kind, restart=0.5), built(kind, restart=0.5)
    vectors, codes = torch.randn(20, D), chosen(book, 20, 3)
    before = {name: value.clone() for name, value in book.state_dict().items()}
    move(book, vectors * float("nan"), codes, 0, torch.tensor(1.0))
    assert all(torch.equal(value, before[name]) for name, value in book.state_dict().items())
    restarted = move(book, vectors, codes, 0, torch.tensor(0.0))
    assert torch.equal(restarted, move(free, vectors, codes, 0)) and restarted.dtype == torch.int64
    assert all(torch.equal(value, free.state_dict()[name]) for name, value in book.state_dict().items())
    still = [name for name, value in book.state_dict().items() if torch.equal(value, before[name])]
    assert book.moves == (still != [*before])


@ALL
def test_a_start_is_the_same_for_the_same_vectors_and_moves_only_what_moves(kind):
    vectors = torch.randn(200, D)
    book, other = built(kind), built(kind)
    before = every_vector(book).clone()
    for each in (book, other):
        each.start(vectors, generator(0))
    assert torch.equal(every_vector(book), every_vector(other))
    assert book.moves == (not torch.equal(every_vector(book), before)) == book.starts_on_vectors


@BOTH
def test_the_loop_is_told_whether_to_start_with_kmeans(kind):
    assert not built(kind, kmeans=False).starts_on_vectors


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


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_all_is_in_fp32_at_least(kind, dtype):
    expected = torch.promote_types(dtype, torch.float32)
    book = built(kind).to(expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = book(torch.randn(1, D, 4, 5).to(dtype))
        assert book.embed(out.codes).dtype == expected
    assert {out.z_q.dtype, out.z_e.dtype, *(term.dtype for term in out.terms.values())} == {expected}
