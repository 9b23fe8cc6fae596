"""Activations whose true dictionary is known, and one small dictionary of every kind."""

import torch
import torch.nn.functional as F

from utils.sae import L1, BatchTopK, Gated, JumpReLU, Matryoshka, TopK

MAKERS = {
    "topk": lambda d, n, **options: TopK(d, n, k=3, **options),
    "batchtopk": lambda d, n, **options: BatchTopK(d, n, k=3, **options),
    "matryoshka": lambda d, n, **options: Matryoshka(d, n, k=3, widths=(n // 4, n // 2), **options),
    "l1": lambda d, n, **options: L1(d, n, sparsity=0.3, **options),
    "gated": lambda d, n, **options: Gated(d, n, sparsity=0.3, **options),
    "jumprelu": lambda d, n, **options: JumpReLU(d, n, sparsity=0.3, threshold=0.1, **options),
}


def planted_activations(n: int, d: int = 16, features: int = 24, share: float = 0.08, seed: int = 0):
    """Sparse positive codes, their directions and ``codes @ directions + offset``: (x, codes, directions)."""
    rng = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(features, d, generator=torch.Generator().manual_seed(99)), dim=1)
    on = torch.rand(n, features, generator=rng) < share
    codes = on * (1 + torch.rand(n, features, generator=rng))
    return codes @ directions + 0.7, codes, directions


def randomised(dictionary, seed: int = 1):
    """The dictionary with every weight random, biases too."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in dictionary.named_parameters():
            noise = torch.randn(parameter.shape, generator=rng)
            parameter.copy_(0.1 + 0.1 * noise.abs() if name == "threshold" else parameter + 0.3 * noise)
        if "threshold" in dict(dictionary.named_buffers()):
            dictionary.threshold.fill_(0.37)
    return dictionary
