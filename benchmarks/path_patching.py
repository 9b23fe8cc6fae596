"""Path patching of all heads on a model of GPT-2 small's shape: this library against one run with hooks for each head.

    python -m benchmarks.path_patching

The peer is timed on every ``STRIDE``-th head and scaled up to all; the same heads are compared. Both sides prepare what
does not depend on the prompts before the clock starts: this library reads the weights once. Both pay for the runs on
the two batches of prompts.
"""

import statistics
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.clock import timed
from benchmarks.gpt2_shape import gpt2_shape
from benchmarks.patching import hooked_twin
from benchmarks.results import Result, show
from utils.metrics import at_end, logit_difference
from utils.patching.path_patching import path_patch_to_inputs, path_patch_to_logits
from utils.transformer import Transformer

PROMPTS, SEQ = 8, 16
STRIDE = 13
RECEIVERS, RECEIVER_LAYERS = [(9, 6), (9, 9), (10, 0)], (9, 10)
TARGET = 60.0
SMALL = {"d_model": 96, "vocab": 500}
Head = tuple[int, int]


class HookLoop:
    """Path patching as it is usually written: activations of both runs in a cache, then runs with hooks."""

    def __init__(self, model: Any, original: Tensor, new: Tensor, metric: Callable) -> None:
        self.model, self.original, self.metric = model, original, metric
        keep = {"names_filter": lambda name: name.endswith("hook_z")}
        self.seconds_of_caches, (self.old, self.new) = timed(
            lambda: [model.run_with_cache(tokens, **keep)[1] for tokens in (original, new)]
        )

    def freeze(self, sender: Head) -> list[tuple[str, Callable]]:
        """Hooks that give every head its old output, and the sender its new one."""

        def write(z: Tensor, hook: object, layer: int) -> Tensor:
            z = self.old["z", layer].clone()
            if layer == sender[0]:
                z[:, :, sender[1]] = self.new["z", layer][:, :, sender[1]]
            return z

        layers = range(self.model.cfg.n_layers)
        return [(f"blocks.{layer}.attn.hook_z", partial(write, layer=layer)) for layer in layers]

    def to_logits(self, sender: Head) -> Tensor:
        """The metric when one head's path to the logits is patched [prompt]."""
        return self.metric(at_end(self.model.run_with_hooks(self.original, fwd_hooks=self.freeze(sender))))

    def to_queries(self, sender: Head) -> Tensor:
        """The metric when one head's paths to the receivers' queries are patched [prompt]."""
        with self.model.hooks(fwd_hooks=self.freeze(sender)):
            keep = {"names_filter": lambda name: name.endswith("hook_q")}
            _, received = self.model.run_with_cache(self.original, **keep)

        def receive(q: Tensor, hook: object, layer: int) -> Tensor:
            heads = [head for at, head in RECEIVERS if at == layer]
            q[:, :, heads] = received["q", layer][:, :, heads]
            return q

        hooks = [(f"blocks.{layer}.attn.hook_q", partial(receive, layer=layer)) for layer in RECEIVER_LAYERS]
        return self.metric(at_end(self.model.run_with_hooks(self.original, fwd_hooks=hooks)))


def compare(
    work: str, ours: Callable[[], Tensor], loop: HookLoop, patch_one: Callable[[Head], Tensor], rounds: int, **more: Any
) -> Result:
    """Time both in turns: the median of all rounds, and the median of the peer's single heads times all heads."""
    heads = list(product(range(loop.model.cfg.n_layers), range(loop.model.cfg.n_heads)))
    some = heads[STRIDE // 2 :: STRIDE]
    ours(), patch_one(heads[0])  # the first call prepares what later ones find
    seconds, of_head, error = [], [], 0.0
    for turn in range(rounds):
        taken, grid = timed(ours)
        seconds.append(taken)
        for head in some[turn::rounds]:
            taken, expected = timed(partial(patch_one, head))
            of_head.append(taken)
            error = max(error, (grid[head] - expected).abs().max().item())
    return Result(
        work=f"{work}, all {len(heads)} heads, {PROMPTS} x {SEQ}",
        peer_seconds=loop.seconds_of_caches + statistics.median(of_head) * len(heads),
        seconds=statistics.median(seconds),
        error=error,
        threads=0 if grid.is_cuda else torch.get_num_threads(),
        extrapolated=True,
        **more,
    )


@torch.no_grad()
def run(quick: bool = False) -> list[Result]:
    """Paths to the logits against loops over both kinds of model, and paths to three heads' queries against one.

    Args:
        quick: Whether to take a small model, to see that everything runs.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bridge = gpt2_shape(device=device, **(SMALL if quick else {}))
    generator = torch.Generator().manual_seed(0)
    original, new = torch.randint(bridge.cfg.d_vocab, (2, PROMPTS, SEQ), generator=generator).to(device)
    right, wrong = torch.randint(bridge.cfg.d_vocab, (2, PROMPTS), generator=generator).to(device)
    metric = partial(logit_difference, right=right, wrong=wrong)
    hooked = hooked_twin(bridge).to(device, print_details=False)
    models = {"HookedTransformer": hooked, "TransformerBridge": bridge}
    plain = Transformer.from_model(bridge)
    to_logits = partial(path_patch_to_logits, plain, original, new, metric)
    to_queries = partial(path_patch_to_inputs, plain, original, new, RECEIVERS, metric)
    results = []
    for name, model in models.items():
        loop, target = HookLoop(model, original, new, metric), TARGET if name == "HookedTransformer" else None
        named = {"peer": f"a run with hooks for each head, {name}", "target": None if quick else target}
        results.append(compare("path patching to logits", to_logits, loop, loop.to_logits, 3, **named))
    work, peer = f"path patching to {len(RECEIVERS)} heads' queries", f"two runs with hooks for each head, {name}"
    return [*results, compare(work, to_queries, loop, loop.to_queries, 1, peer=peer)]


def main() -> None:
    """Print this benchmark alone."""
    torch.set_num_threads(1)
    show(run())


if __name__ == "__main__":
    main()
