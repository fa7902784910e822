import pytest
import torch

from tests.pretend_device import pretend
from vqprior.evaluation import nearest as module
from vqprior.evaluation.nearest import Points, copy_share, nearest


@pytest.mark.parametrize("chunks", [(512, 2**26), (3, 5 * 6)])
def test_it_is_brute_force(monkeypatch, chunks):
    monkeypatch.setattr(module, "QUERIES", chunks[0])
    monkeypatch.setattr(module, "NUMBERS", chunks[1])
    chance = torch.Generator().manual_seed(0)
    queries, references = torch.rand(10, 6, generator=chance), torch.rand(23, 6, generator=chance)
    expected = (queries[:, None].double() - references.double()).square().sum(2).sqrt().min(1)
    distances, indices = nearest(Points.of(queries), Points.of(references))
    assert torch.allclose(distances, expected.values, rtol=1e-12) and torch.equal(indices, expected.indices)


def test_a_copy_is_at_distance_zero_and_what_is_nearly_one_is_not():
    references = torch.rand(100, 784, generator=torch.Generator().manual_seed(1))
    queries = references[[42, 7]].clone()
    queries[1, 3] += 1e-3
    distances, indices = nearest(Points.of(queries), Points.of(references))
    assert (
        indices.tolist() == [42, 7]
        and distances[0] == 0
        and distances[1].item() == pytest.approx(1e-3, rel=1e-3)
    )


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("there", [False, True])
def test_a_device_finds_what_the_cpu_finds(monkeypatch, kind, there):
    """Also points that are read onto it; the products are its own, and distances are in fp64 wherever it has
    none."""
    monkeypatch.setattr(module, "QUERIES", 5)
    monkeypatch.setattr(module, "NUMBERS", 5 * 50)
    references = torch.rand(23, 50, generator=torch.Generator().manual_seed(3))
    queries = torch.cat([references[[4, 21]], torch.rand(9, 50, generator=torch.Generator().manual_seed(4))])
    expected = nearest(Points.of(queries), Points.of(references))
    with pretend(kind) as gpu:
        points = [Points.of(x.to(gpu.device) if there else x) for x in (queries, references)]
        distances, indices = nearest(*points, gpu.device)
        assert gpu.operations["addmm"] == 5 * 3 and gpu.operations["topk"] == 5 * 3
    assert torch.equal(distances, expected[0]) and torch.equal(indices, expected[1])
    assert distances.dtype == torch.float64 and indices[:2].tolist() == [4, 21] and (distances[:2] == 0).all()


def test_of_equal_references_the_first_is_taken_whatever_the_parts(monkeypatch):
    references = torch.rand(5, 3, generator=torch.Generator().manual_seed(2)).repeat(4, 1)
    for held in (2**13, 4, 1):
        monkeypatch.setattr(module, "REFERENCES", held)
        assert nearest(Points.of(references), Points.of(references))[1].tolist() == [0, 1, 2, 3, 4] * 4


def test_no_more_than_a_part_of_the_references_is_held(monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 7 * 6)
    references, read = torch.rand(23, 6), []

    def watched(indices: torch.Tensor) -> torch.Tensor:
        read.append(len(indices))
        return references[indices]

    nearest(Points.of(torch.rand(4, 6)), Points(watched, 23))
    assert read == [7, 7, 7, 2]  # and each once


def test_the_matrix_of_distances_is_bounded_where_points_are_small(monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 40)
    monkeypatch.setattr(module, "QUERIES", 10)
    references, read = torch.rand(23, 2), []

    def watched(indices: torch.Tensor) -> torch.Tensor:
        read.append(len(indices))
        return references[indices]

    nearest(Points.of(torch.rand(30, 2)), Points(watched, 23))
    assert read == [4, 4, 4, 4, 4, 3]  # 4 for 10 queries, not the 20 whose numbers would fit


def test_the_share_of_copies():
    real = torch.arange(1, 1001).double()  # 1 % of them are below about 11
    assert copy_share(torch.tensor([0.0, 5.0, 500.0, 2000.0]), real) == 0.5
    assert copy_share(real, real) == pytest.approx(0.01)
    twice = torch.cat([torch.zeros(2), 1 + torch.rand(98)])  # test pictures that stand in training, too
    assert copy_share(torch.zeros(100), twice) == 1 and copy_share(torch.ones(100) / 2, twice) == 0
