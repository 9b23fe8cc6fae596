"""How a check's inputs travel: what comes out is what went in."""

from contextvars import ContextVar

import pytest
import torch

from course.autograde.travel import pack, unpack

TENSORS = {
    "numbers": torch.randn(3, 4),
    "a number": torch.tensor(2.5),
    "nothing": torch.zeros(0, 5),
    "truths": torch.tensor([True, False]),
    "half precision": torch.randn(3).bfloat16(),
    "complex": torch.randn(3, dtype=torch.complex64).conj(),
    "a transposed matrix": torch.randn(3, 4).T,
    "a repeated row": torch.randn(4).expand(3, 4),
    "a part of a larger one": torch.randn(5, 4)[1:3],
    "a sparse one": torch.eye(3).to_sparse(),
    "with gradients": torch.ones(3, requires_grad=True),
    "a parameter": torch.nn.Parameter(torch.ones(3)),
    "a fixed parameter": torch.nn.Parameter(torch.ones(3), requires_grad=False),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_tensors(tensor):
    after = unpack(pack(tensor))
    assert type(after) is type(tensor)
    assert (after.dtype, after.shape, after.requires_grad) == (tensor.dtype, tensor.shape, tensor.requires_grad)
    if not tensor.is_sparse:
        assert after.stride() == tensor.stride()
    assert torch.equal(after.to_dense(), tensor.to_dense())


def test_what_comes_out_can_be_changed_and_is_a_copy():
    tensor = torch.zeros(3)
    unpack(pack(tensor)).add_(1)
    assert not tensor.any()


def test_one_tensor_in_two_places_stays_one():
    embed, unembed = torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(3, 4, bias=False)
    unembed.weight = embed.weight
    first, second = unpack(pack((embed, unembed)))
    assert first.weight is second.weight
    assert torch.equal(first.weight, embed.weight)


def test_random_generators_and_context_variables():
    generator, variable = torch.Generator().manual_seed(3), ContextVar("variable")
    variable.set(5)
    copied, other = unpack(pack((generator, variable)))
    assert torch.equal(torch.rand(3, generator=copied), torch.rand(3, generator=generator))
    assert other.get() == 5


def doubled(x):
    return 2 * x


def test_functions_of_a_test_file_go_with_their_code():
    copied = unpack(pack(doubled))
    assert copied is not doubled
    assert copied(4) == 8
