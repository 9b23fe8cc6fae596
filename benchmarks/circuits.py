"""Circuit discovery: this library's EAP, EAP-IG and ACDC against direct implementations.

    python -m benchmarks.circuits

The peer of EAP and EAP-IG is written here as their authors' repository has it: hooks on a HookedTransformer record what
every source writes, and backward hooks multiply it with the gradient that autograd brings to every destination, through
a model whose parameters take gradients too. The peer of ACDC is the published algorithm, one run of the model for each
edge, timed on the first edges and scaled up to all; on these the decisions are compared.
"""

import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import gelu

from benchmarks.results import Result
from utils.circuits import Graph, acdc, acdc_sequential, eap, eap_ig
from utils.circuits.discovery import reverse_order
from utils.metrics import logit_difference
from utils.read_weights import Layer
from utils.transformer import Transformer

PROMPTS, SEQ = 8, 16
LARGEST_ERROR = 1e-4
STEPS = 5
EAP_ROUNDS, ACDC_ROUNDS = 2, 5
TARGETS = {0.0003: 5.0, 0.003: 50.0}
"""ACDC's thresholds, at which about 350 and 35 edges are kept, and the ratios to reach."""


def run(quick: bool = False) -> list[Result]:
    """All rows.

    Args:
        quick: A smaller model and fewer edges, to see that everything works.
    """
    return [*_measure_attribution(quick), *_measure_acdc(quick)]


def _seconds(work: Callable[[], object], rounds: int) -> tuple[float, object]:
    """The fewest seconds that some work took, and its result.

    On one thread it is processor time, which other programs do not change, else wall time.
    """
    clock, times = time.process_time if torch.get_num_threads() == 1 else time.perf_counter, []
    for _ in range(rounds):
        start = clock()
        result = work()
        times.append(clock() - start)
    return min(times), result


def _prompts(vocab: int) -> tuple[Tensor, Tensor]:
    """Prompts and their twins, in which one token differs."""
    rng = torch.Generator().manual_seed(1)
    clean = torch.randint(vocab, (PROMPTS, SEQ), generator=rng)
    corrupted = clean.clone()
    corrupted[:, 6] = torch.randint(vocab, (PROMPTS,), generator=rng)
    return clean, corrupted


# EAP and EAP-IG


def _measure_attribution(quick: bool) -> list[Result]:
    hooked = _hooked_gpt2(2 if quick else 12)
    model, graph = Transformer.from_model(hooked), Graph(hooked.cfg.n_layers, hooked.cfg.n_heads)
    clean, corrupted = _prompts(hooked.cfg.d_vocab)
    metric = partial(logit_difference, right=clean[:, 3], wrong=clean[:, 4])
    rows = []
    for name, steps in (("EAP", 1), (f"EAP-IG, {STEPS} steps", STEPS)):
        ours = eap if steps == 1 else partial(eap_ig, steps=steps)
        fast, scores = _seconds(partial(ours, model, clean, corrupted, metric), EAP_ROUNDS)
        slow, expected = _seconds(
            partial(_attribution_with_hooks, hooked, graph, clean, corrupted, metric, steps), EAP_ROUNDS
        )
        error = (scores.sum(-1) - expected).abs().max().item() / expected.abs().max().item()
        assert error < LARGEST_ERROR, f"{name}: scores differ by {error:.1e} of the largest"
        work = f"{name}, all {graph.n_edges:,} edges, {PROMPTS} x {SEQ} tokens"
        rows.append(Result(work, "hooks and backward", slow, fast, error, 12.0, torch.get_num_threads()))
    return rows


def _hooked_gpt2(n_layers: int):
    """A HookedTransformer of GPT-2 small's shape with random weights, which reports every edge's two ends."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    shape = {"n_layers": n_layers, "d_model": 768, "n_heads": 12, "d_head": 64, "d_mlp": 3072, "d_vocab": 50257}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = HookedTransformerConfig(**shape, n_ctx=64, act_fn="gelu_new", normalization_type="LN", device="cpu")
        hooked = HookedTransformer(cfg)
    rng = torch.Generator().manual_seed(0)
    for weight in hooked.parameters():
        weight.data = torch.randn(weight.shape, generator=rng) * 0.03 + (weight.ndim == 1) * weight.data
    hooked.set_use_attn_result(True)
    hooked.set_use_split_qkv_input(True)
    hooked.set_use_hook_mlp_in(True)
    return hooked


def _attribution_with_hooks(
    hooked, graph: Graph, clean: Tensor, corrupted: Tensor, metric: Callable[[Tensor], Tensor], steps: int
) -> Tensor:
    """Scores [source, destination], summed over prompts."""
    written = {"blocks.0.hook_resid_pre": slice(0, 1)}
    read = {f"blocks.{graph.n_layers - 1}.hook_resid_post": slice(-1, None)}
    for layer in range(graph.n_layers):
        heads, inputs = graph.head_sources(layer), graph.head_inputs(layer)
        written |= {
            f"blocks.{layer}.attn.hook_result": heads,
            f"blocks.{layer}.hook_mlp_out": slice(heads.stop, heads.stop + 1),
        }
        for place, channel in enumerate("qkv"):
            start = inputs.start + place * graph.n_heads
            read[f"blocks.{layer}.hook_{channel}_input"] = slice(start, start + graph.n_heads)
        read[f"blocks.{layer}.hook_mlp_in"] = slice(inputs.stop, inputs.stop + 1)
    change = torch.zeros(*clean.shape, len(graph.sources), hooked.cfg.d_model)
    scores = torch.zeros(graph.exists.shape)

    def add_to_change(output: Tensor, hook, sign: int) -> None:
        output = output.detach() if output.ndim == 4 else output.detach()[:, :, None]
        change[:, :, written[hook.name]] += sign * output

    def score(gradient: Tensor, hook) -> None:
        gradient = gradient if gradient.ndim == 4 else gradient[:, :, None]
        columns = read[hook.name]
        n = graph.n_readable[columns.start]
        scores[:n, columns] += torch.einsum("bpsd,bpjd->sj", change[:, :, :n], gradient)

    for tokens, sign in ((corrupted, 1), (clean, -1)):
        with torch.no_grad():
            hooked.run_with_hooks(tokens, fwd_hooks=[(name, partial(add_to_change, sign=sign)) for name in written])
    with torch.no_grad():
        starts = [hooked.embed(tokens) + hooked.pos_embed(tokens) for tokens in (corrupted, clean)]
    for step in range(1, steps + 1):
        start = starts[0] + step / steps * (starts[1] - starts[0])
        replace = ("blocks.0.hook_resid_pre", lambda _, hook, start=start: start.requires_grad_())
        with hooked.hooks(fwd_hooks=[replace], bwd_hooks=[(name, score) for name in read]):
            metric(hooked(clean)[:, -1]).sum().backward()
    return scores / steps


# ACDC


def _measure_acdc(quick: bool) -> list[Result]:
    model = _random_decoder(n_layers=2 if quick else 4)
    clean, corrupted = _prompts(model.d_vocab)
    order = reverse_order(Graph.of(model))
    compared = order[: 60 if quick else 200]
    rows = []
    for threshold, target in TARGETS.items():
        find = partial(acdc, model, clean, corrupted, threshold, progress=False)
        fast, found = _seconds(find, ACDC_ROUNDS)
        plain = partial(acdc_sequential, model, clean, corrupted, threshold, order=compared, progress=False)
        slow, expected = _seconds(plain, ACDC_ROUNDS)
        pairs = zip(found.decisions, expected.decisions, strict=False)
        differ = sum((ours.edge, ours.removed) != (theirs.edge, theirs.removed) for ours, theirs in pairs)
        assert not differ, f"ACDC at {threshold}: {differ} of {len(compared)} decisions differ"
        work = f"ACDC, {len(order):,} edges, {len(found.circuit)} kept"
        scaled = slow * len(order) / len(compared)
        threads = torch.get_num_threads()
        rows.append(Result(work, "a run for each edge", scaled, fast, differ, target, threads, extrapolated=True))
    return rows


def _random_decoder(n_layers: int, n_heads: int = 8, d_model: int = 256, vocab: int = 500) -> Transformer:
    """A decoder with weights large enough that its components matter."""
    rng = torch.Generator().manual_seed(0)
    plain_norm = (None, None)

    def weight(*shape: int, scale: float = 1.5) -> Tensor:
        return torch.randn(shape, generator=rng) * scale / shape[0] ** 0.5

    def layer() -> Layer:
        W_QKV = weight(d_model, 3 * d_model)
        W_QKV[:, :d_model] /= (d_model / n_heads) ** 0.5
        attention = (
            W_QKV,
            torch.zeros(3 * d_model),
            weight(d_model, d_model, scale=1.5 * n_heads**0.5),
            torch.zeros(d_model),
        )
        mlp = weight(d_model, 4 * d_model), torch.zeros(4 * d_model), weight(4 * d_model, d_model), torch.zeros(d_model)
        return Layer(*attention, plain_norm, plain_norm, *mlp, activation=gelu, window=None)

    return Transformer(
        n_heads,
        d_model // n_heads,
        1e-5,
        [layer() for _ in range(n_layers)],
        torch.randn(vocab, d_model, generator=rng),
        torch.randn(64, d_model, generator=rng),
        plain_norm,
        weight(d_model, vocab),
        torch.zeros(vocab),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for row in run():
        times = f"{row.peer_seconds:8.2f} -> {row.seconds:6.2f} s"
        print(f"{row.work:55} {row.peer:20} {times} {row.ratio:6.1f}x (target {row.target:g}x), error {row.error:.0e}")
