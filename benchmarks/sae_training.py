"""One training step of a sparse dictionary: this library against SAELens.

    python -m benchmarks.sae_training

Both sides start from the same weights, read the same batches and take the same Adam steps, in turn. Their decoders are
compared after the first steps. Gated dictionaries are left out: SAELens trains them without the frozen decoder of the
paper, so the two sides would not compute the same thing.
"""

import contextlib
import io
import itertools
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.results import Result, devices, show, threads_of
from utils.sae import L1, BatchTopK, Dictionary, DictionaryTraining, JumpReLU, Matryoshka, TopK, TrainingSettings

BATCH, K, LR = 1024, 32, 1e-3
BATCHES = 4
COMPARED_STEPS, LARGEST_ERROR = 5, 1e-4
SETTINGS = TrainingSettings(
    steps=10**6, batch=BATCH, lr=LR, warmup=1, sparsity_warmup=0.0, revive=None, normalise=False, unit_norm=False
)


@dataclass(frozen=True)
class Case:
    """One kind and shape, with the ratio to reach, if there is one."""

    kind: str
    d_in: int
    latents: int
    rounds: int
    target: float | None = None


CASES = (
    Case("topk", 768, 6144, 7, 4.0),
    Case("topk", 128, 1024, 25, 2.0),
    Case("batchtopk", 128, 1024, 15),
    Case("matryoshka", 128, 1024, 15),
    Case("l1", 128, 1024, 15),
    Case("jumprelu", 128, 1024, 15),
)


def planted_batches(d: int, device: str) -> list[Tensor]:
    """Sums of few random directions, as the activations of a model are thought to be."""
    rng = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(2 * d, d, generator=rng), dim=1)
    return [((torch.randn(BATCH, 2 * d, generator=rng) - 1.5).relu() @ directions).to(device) for _ in range(BATCHES)]


def peer(case: Case, device: str):
    """SAELens's trainer around a fresh dictionary."""
    import sae_lens as lens
    from sae_lens.config import SAETrainerConfig

    shape = {"d_in": case.d_in, "d_sae": case.latents, "device": device, "dtype": "float32"}
    top = {**shape, "k": K, "rescale_acts_by_decoder_norm": False}
    nested = {**top, "matryoshka_widths": list(widths(case))}
    sae = {
        "topk": lambda: lens.TopKTrainingSAE(lens.TopKTrainingSAEConfig(**top)),
        "batchtopk": lambda: lens.BatchTopKTrainingSAE(lens.BatchTopKTrainingSAEConfig(**top)),
        "matryoshka": lambda: lens.MatryoshkaBatchTopKTrainingSAE(lens.MatryoshkaBatchTopKTrainingSAEConfig(**nested)),
        "l1": lambda: lens.StandardTrainingSAE(lens.StandardTrainingSAEConfig(**shape)),
        "jumprelu": lambda: lens.JumpReLUTrainingSAE(lens.JumpReLUTrainingSAEConfig(**shape)),
    }[case.kind]()
    config = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=10**9,
        device=device,
        autocast=False,
        lr=LR,
        lr_end=LR,
        lr_scheduler_name="constant",
        lr_warm_up_steps=0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        lr_decay_steps=0,
        n_restart_cycles=1,
        train_batch_size_samples=BATCH,
        dead_feature_window=1000,
        feature_sampling_window=2000,
        logger=lens.LoggingConfig(log_to_wandb=False),
    )
    return lens.SAETrainer(config, sae, iter(()))


def widths(case: Case) -> tuple[int, ...]:
    """The levels of a Matryoshka."""
    return case.latents // 16, case.latents // 4, case.latents


def ours(case: Case, sae, batches: list[Tensor], device: str) -> DictionaryTraining:
    """This library's run from the weights of a dictionary of SAELens."""
    make: dict[str, Callable[[], Dictionary]] = {
        "topk": lambda: TopK(case.d_in, case.latents, k=K),
        "batchtopk": lambda: BatchTopK(case.d_in, case.latents, k=K),
        "matryoshka": lambda: Matryoshka(case.d_in, case.latents, k=K, widths=widths(case)),
        "l1": lambda: L1(case.d_in, case.latents, sparsity=1.0),
        "jumprelu": lambda: JumpReLU(case.d_in, case.latents, sparsity=1.0),
    }
    dictionary = make[case.kind]().to(device)
    with torch.no_grad():
        dictionary.encoder.copy_(sae.W_enc.T)
        for name, parameter in dictionary.named_parameters():
            if name != "encoder":
                parameter.copy_(getattr(sae, name))
    return DictionaryTraining(dictionary, lambda step: (batches[step % BATCHES],) * 2, SETTINGS)


def seconds(step: Callable[[], object], device: str) -> float:
    """How long a step takes: processor time on one thread, which other programs do not change, else wall time."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def measure(case: Case, device: str) -> Result:
    """One row of the table.

    Raises:
        AssertionError: if the two sides' decoders differ after the first steps.
    """
    batches = planted_batches(case.d_in, device)
    torch.manual_seed(0)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        trainer = peer(case, device)
    run = ours(case, trainer.sae, batches, device)
    feed = itertools.cycle(batches)

    def their_step() -> None:
        trainer.step(next(feed))
        trainer.n_training_steps += 1

    for _ in range(COMPARED_STEPS):
        their_step()
        run.take_step()
    error = (trainer.sae.W_dec - run.model.W_dec).abs().max().item()
    assert error < LARGEST_ERROR, f"{case}: decoders differ by {error:.1e} after {COMPARED_STEPS} steps"
    pairs = [(seconds(their_step, device), seconds(run.take_step, device)) for _ in range(case.rounds)]
    theirs, own = (statistics.median(times) for times in zip(*pairs, strict=True))
    work = f"{case.kind} training step, {case.d_in} -> {case.latents:,}, batch {BATCH:,}"
    return Result(work, "sae-lens", theirs, own, error, case.target, threads_of(device))


def run(quick: bool = False) -> list[Result]:
    """All kinds on the CPU and, where there is one, on a GPU; quickly, those alone that have a target to reach."""
    return [measure(case, device) for device in devices() for case in CASES if case.target or not quick]


if __name__ == "__main__":
    show(run())
