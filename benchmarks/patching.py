"""Activation patching of a model of GPT-2 small's shape, 8 prompts of 16 tokens, against ``transformer_lens.patching``.

    python -m benchmarks.patching

The peer runs on a HookedTransformer, the class that it was written for, and on a TransformerBridge, which is faster. It
makes one forward pass for each cell of a grid, whichever it is: some cells are timed, compared with this library's, and
scaled up to the whole grid. Neither side's time holds the loading of its model: for this library, reading the bridge's
weights into a Transformer, once for all grids, which takes about as long as one forward pass of the peer.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from benchmarks.clock import timed
from benchmarks.gpt2_shape import gpt2_shape
from benchmarks.results import Result
from utils.metrics import at_end, logit_difference
from utils.patching import patch_heads, patch_residual
from utils.transformer import Transformer

PROMPTS, SEQ = 8, 16
DIFFERENT = 10
"""The position of the one token that differs, where the second name of a sentence about indirect objects stands."""
KINDS = ("z", "q", "k", "v", "pattern")
TIMED_CELLS = 8
LARGEST_ERROR = 1e-4


def run(quick: bool = False) -> list[Result]:
    """Time every grid on both pairs of prompts.

    Args:
        quick: Whether to take a small model, to see that everything runs.
    """
    bridge = gpt2_shape(d_model=96, vocab=500, layers=3) if quick else gpt2_shape()
    plain = Transformer.from_model(bridge)
    peers = {"HookedTransformer": hooked_twin(bridge), "TransformerBridge": bridge}
    clean, other, answers = _prompts(bridge.cfg.d_vocab)
    one = clean.clone()
    one[:, DIFFERENT] = other[:, DIFFERENT]
    results = []
    patch_residual(plain, clean, one, answers)  # the first call prepares what later ones find
    for corrupted, which in ((one, "one token differs"), (other, "all differ")):
        for grid, targets in (
            ("residual patching", (40, 10)),
            ("head outputs, all positions", (14, 7)),
            ("all heads x q, k, v, pattern, z", (15, 6)),
        ):
            seconds, ours = timed(partial(OURS[grid], plain, clean, corrupted, answers))
            ours = ours.mean(-1)  # over prompts, as the peer's metric
            for name, model in peers.items():
                cells = _some_cells(ours.shape, grid)
                peer_seconds, error = _peer(model, grid, clean, corrupted, answers, ours, cells)
                results.append(
                    Result(
                        work=f"{grid}, {PROMPTS} x {SEQ}, {which}",
                        peer=f"transformer_lens.patching, {name}",
                        peer_seconds=peer_seconds * ours.numel(),
                        seconds=seconds,
                        error=error,
                        target=targets[corrupted is other] if name == "HookedTransformer" and not quick else None,
                        threads=torch.get_num_threads(),
                        extrapolated=True,
                    )
                )
    return results


OURS: dict[str, Callable[..., Tensor]] = {
    "residual patching": patch_residual,
    "head outputs, all positions": partial(patch_heads, kinds=["z"]),
    "all heads x q, k, v, pattern, z": partial(patch_heads, kinds=KINDS),
}


def hooked_twin(bridge: Any) -> Any:
    """A HookedTransformer with a bridge's weights."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    plain, cfg = Transformer.from_model(bridge), bridge.cfg
    same = {name: getattr(cfg, name) for name in ("n_layers", "n_heads", "d_model", "d_head", "d_vocab", "n_ctx")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = HookedTransformerConfig(**same, act_fn="gelu_new", normalization_type="LNPre", init_weights=False)
        hooked = HookedTransformer(config)
    weights = {"embed.W_E": plain.W_E, "pos_embed.W_pos": plain.W_pos}
    weights |= {"unembed.W_U": plain.W_U, "unembed.b_U": plain.b_U}
    for i, block in enumerate(bridge.blocks):
        attention = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")
        weights |= {f"blocks.{i}.attn.{name}": getattr(block.attn, name) for name in attention}
        weights |= {f"blocks.{i}.mlp.{name}": getattr(block.mlp, name) for name in ("W_in", "b_in", "W_out", "b_out")}
    hooked.load_state_dict(weights, strict=False)
    return hooked.requires_grad_(False).eval()


def _prompts(vocab: int) -> tuple[Int[Tensor, "prompt seq"], Int[Tensor, "prompt seq"], partial]:
    """Two batches of random tokens that differ everywhere, and the logit difference of two random answers."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(vocab, (PROMPTS, SEQ), generator=generator)
    other = (clean + torch.randint(1, vocab, (PROMPTS, SEQ), generator=generator)) % vocab
    right, wrong = torch.randint(vocab, (2, PROMPTS), generator=generator)
    return clean, other, partial(logit_difference, right=right, wrong=wrong)


def _some_cells(shape: torch.Size, grid: str) -> list[tuple[int, ...]]:
    """Cells of a grid, in different layers, at which a patch matters."""
    cells = list(product(*map(range, shape)))
    if grid == "residual patching":
        cells = [cell for cell in cells if cell[1] >= DIFFERENT]
    step = len(cells) // TIMED_CELLS
    return cells[step // 2 :: step][:TIMED_CELLS]


@torch.no_grad()
def _peer(
    model: Any,
    grid: str,
    clean: Tensor,
    corrupted: Tensor,
    answers: partial,
    ours: Tensor,
    cells: list[tuple[int, ...]],
) -> tuple[float, float]:
    """Seconds of the peer for one cell, the median of some, and the largest difference between its results and ours."""
    import pandas as pd
    from transformer_lens import patching

    functions = {
        "z": patching.get_act_patch_attn_head_out_all_pos,
        "q": patching.get_act_patch_attn_head_q_all_pos,
        "k": patching.get_act_patch_attn_head_k_all_pos,
        "v": patching.get_act_patch_attn_head_v_all_pos,
        "pattern": patching.get_act_patch_attn_head_pattern_all_pos,
    }
    _, cache = model.run_with_cache(clean)
    seconds, error = [], 0.0
    for cell in cells:
        patch = patching.get_act_patch_resid_pre if grid == "residual patching" else functions[KINDS[cell[0]]]
        index = pd.DataFrame([cell[-2:]], columns=["layer", "place"])
        metric = lambda logits: answers(at_end(logits)).mean()  # noqa: E731
        taken, theirs = timed(partial(patch, model, corrupted, cache, metric, index_axis_names=None, index_df=index))
        seconds.append(taken)
        error = max(error, float((theirs[0] - ours[cell]).abs()))
    assert error < LARGEST_ERROR, f"{grid}: results differ by {error:.1e}"
    return statistics.median(seconds), error


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, to see that everything runs")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for row in run(arguments.quick):
        target = f" (target {row.target:g})" if row.target else ""
        print(
            f"{row.work:<62} {row.peer:<46} {row.peer_seconds:7.1f} s {row.seconds:6.2f} s {row.ratio:5.1f}x{target} "
            f"error {row.error:.0e}"
        )


if __name__ == "__main__":
    main()
