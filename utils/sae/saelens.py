"""Dictionaries on disk, in SAELens's own format, and to and from its classes.

Reading and writing need no SAELens, whose import takes seconds: the format is a ``cfg.json`` and a
``sae_weights.safetensors``. A folder written here opens with ``sae_lens.SAE.load_from_disk(folder)``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from utils.sae.activations import Site
from utils.sae.batch_topk import BatchTopK
from utils.sae.dictionary import Dictionary
from utils.sae.gated import Gated
from utils.sae.jumprelu import JumpReLU
from utils.sae.l1 import L1
from utils.sae.topk import TopK

if TYPE_CHECKING:
    import sae_lens

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
FORMAT_VERSION = "6.54.0"
AUTOENCODERS = {"topk": "topk", "l1": "standard", "gated": "gated", "jumprelu": "jumprelu"}
TRANSCODERS = {"l1": "transcoder", "jumprelu": "jumprelu_transcoder"}
READABLE = (
    *AUTOENCODERS.values(),
    *TRANSCODERS.values(),
    "skip_transcoder",
    "jumprelu_skip_transcoder",
)


def save_dictionary(dictionary: Dictionary, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a dictionary into a folder.

    Args:
        dictionary: In evaluation mode. A BatchTopK or Matryoshka is written as the JumpReLU that it is there.
        folder: Made if it does not exist.
        dtype: How to store the weights; SAELens reads them as float32 in any case.

    Raises:
        ValueError: if SAELens has no such kind (a TopK or gated transcoder).
    """
    from safetensors.torch import save_file

    config, weights = _to_format(dictionary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({name: weight.to(dtype).contiguous() for name, weight in weights.items()}, folder / WEIGHTS)


def open_dictionary(folder: Path, device: str = "cpu") -> Dictionary:
    """Open a folder that this module or SAELens has written: evaluation mode, float32, no gradients.

    Raises:
        FileNotFoundError: if the folder lacks one of the two files.
        ValueError: if the dictionary is of a kind that is not read here.
    """
    from safetensors.torch import load_file

    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"There is no dictionary in {str(folder)!r}: it has no {file}.")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    weights = {name: weight.float() for name, weight in load_file(folder / WEIGHTS).items()}
    return _from_format(config, weights).to(device)


def to_saelens(dictionary: Dictionary) -> "sae_lens.SAE":
    """The same dictionary as an object of SAELens."""
    import sae_lens

    config, weights = _to_format(dictionary)
    sae = sae_lens.SAE.from_dict(config)
    sae.load_state_dict(weights)
    return sae.eval()


def from_saelens(sae: "sae_lens.SAE") -> Dictionary:
    """The same dictionary as an object of this library, from SAELens's, such as a pretrained one of its hub.

    Raises:
        ValueError: if it is of a kind that is not read here.
    """
    weights = {name: weight.detach().float() for name, weight in sae.state_dict().items()}
    return _from_format(sae.cfg.to_dict(), weights).to(sae.W_dec.device)


def _to_format(dictionary: Dictionary) -> tuple[dict, dict[str, Tensor]]:
    frozen = isinstance(dictionary, BatchTopK)
    kind = "jumprelu" if frozen else dictionary.kind
    names = TRANSCODERS if dictionary.is_transcoder else AUTOENCODERS
    if kind not in names:
        raise ValueError(f"SAELens has no {kind} transcoder; train one of: batchtopk, {', '.join(TRANSCODERS)}.")
    architecture = names[kind]
    weights = {"W_enc": dictionary.W_enc, "W_dec": dictionary.W_dec, "b_dec": dictionary.b_dec}
    weights |= {bias: getattr(dictionary, bias) for bias in dictionary.encoder_biases}
    if kind == "gated":
        weights["r_mag"] = dictionary.r_mag
    if kind == "jumprelu":
        weights["threshold"] = dictionary.threshold.float().expand(dictionary.n_latents)
    if dictionary.W_skip is not None:
        architecture = architecture.replace("transcoder", "skip_transcoder")
        weights["W_skip"] = dictionary.W_skip
    site = dictionary.site
    config = {
        "architecture": architecture,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not dictionary.is_transcoder,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if site and site.reads.endswith("hook_z") else "none",
        "metadata": {
            "sae_lens_version": FORMAT_VERSION,
            "training_architecture": dictionary.kind,
            **dictionary.metadata,
            **({"hook_name": site.reads} if site else {}),
            **({"hook_name_out": site.writes} if site and site.writes else {}),
        },
    }
    if kind == "topk":
        config |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
    if dictionary.is_transcoder:
        config["d_out"] = dictionary.d_out
    return config, {name: weight.detach().clone().contiguous() for name, weight in weights.items()}


def _from_format(config: Mapping, weights: Mapping[str, Tensor]) -> Dictionary:
    architecture = config.get("architecture", "standard")
    if architecture not in READABLE or config.get("normalize_activations", "none") not in (None, "none"):
        raise ValueError(
            f"A dictionary of architecture {architecture!r} with normalize_activations="
            f"{config.get('normalize_activations')!r} is not read here. Readable, without normalisation: "
            f"{', '.join(READABLE)}."
        )
    options: dict = {"d_out": weights["W_dec"].shape[1]} if "transcoder" in architecture else {}
    if "W_skip" in weights:
        options["skip"] = True
    kind = {"topk": TopK, "gated": Gated}.get(architecture, JumpReLU if "jumprelu" in architecture else L1)
    if kind is TopK:
        options["k"] = config["k"]
    dictionary = kind(*weights["W_enc"].shape, **options)
    weights = _plain(config, dictionary.encoder_biases, dict(weights))
    dictionary.load_state_dict(weights, strict=False)
    metadata = {key: value for key, value in dict(config.get("metadata", {})).items() if value is not None}
    if "hook_name" in metadata:
        dictionary.site = Site(metadata.pop("hook_name"), metadata.pop("hook_name_out", None))
    dictionary.metadata = metadata
    return dictionary.eval().requires_grad_(False)


def _plain(config: Mapping, biases: tuple[str, ...], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for an encoder that reads ``x - b_dec`` and latents that are not divided by the decoder's norm."""
    if config.get("rescale_acts_by_decoder_norm"):
        norm = weights["W_dec"].norm(dim=1)
        weights["W_dec"] = weights["W_dec"] / norm[:, None]
        weights["W_enc"] = weights["W_enc"] * norm
        weights["b_enc"] = weights["b_enc"] * norm
    weights["encoder"] = weights.pop("W_enc").T
    if "threshold" in weights:
        weights["threshold"] = weights["threshold"].clamp(min=0)  # SAELens applies a ReLU below the threshold
    if not config.get("apply_b_dec_to_input", True) and "transcoder" not in config["architecture"]:
        scale = {"b_mag": weights["r_mag"].exp()} if "r_mag" in weights else {}
        for bias in biases:
            weights[bias] = weights[bias] + (weights["encoder"] @ weights["b_dec"]) * scale.get(bias, 1.0)
    return weights
