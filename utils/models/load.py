"""Open a model by name: one that is shipped with the course, one from the Hugging Face hub, or a folder.

Loading is silent: nothing is printed, and nothing reaches stderr.
"""

import contextlib
import difflib
import hashlib
import io
import json
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from utils.models.checkpoints import steps_of, weights_at
from utils.models.live_attention import make_attention_live
from utils.models.native import is_native, open_native

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase

SHIPPED = Path(__file__).parent / "shipped"
CARD, WEIGHTS = "card.json", "model.safetensors"
HUB_MODELS = (
    "gpt2",
    "gpt2-medium",
    "gpt2-large",
    "gpt2-xl",
    "distilgpt2",
    "EleutherAI/pythia-70m",
    "EleutherAI/pythia-160m",
)
"""Names of the hub without an owner, and a few others, so that a misspelt name can be told from a far-away model."""
HUB_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
HUB_SECONDS = 1.5
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")


class HubUnavailable(RuntimeError):
    """The Hugging Face hub cannot be reached, and the model is not in the local cache."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is on the Hugging Face hub, which cannot be reached from here.")


class DamagedModel(RuntimeError):
    """A shipped file differs from what its card says."""


def available_models() -> list[str]:
    """The names of the shipped models."""
    return sorted(card.parent.name for card in SHIPPED.glob(f"*/{CARD}"))


def model_folder(name: str) -> Path:
    """The folder of a shipped model, whether or not it has been trained."""
    return SHIPPED / name


def checkpoint_steps(name: str) -> list[int]:
    """The training steps at which a shipped model can be opened with ``load_model(name, checkpoint=step)``."""
    return steps_of(_folder_of(name))


def load_model(
    name: str | Path, *, device: str = "cpu", gradients: bool = False, checkpoint: int | None = None
) -> "TransformerBridge":
    """Open a model for reading, in evaluation mode and float32.

    A language model's layer norms are folded into the weights that read them, and its weights centred, as
    ``HookedTransformer.from_pretrained`` did; a toy model of the course keeps the weights it was trained with.

    Args:
        name: A shipped model (see :func:`available_models`), a name of the hub ("gpt2") or a folder.
        device: Where to put the model.
        gradients: Whether weights require gradients. Without them every call is cheaper and returns plain tensors;
            with them backward hooks work. ``model.requires_grad_(True)`` turns them on later.
        checkpoint: The training step, for a model that was kept at several (see :func:`checkpoint_steps`).

    Returns:
        A TransformerBridge, with its tokenizer if it has one. Hooks on attention scores and patterns can change it.

    Raises:
        HubUnavailable: if the model is on the hub and the hub cannot be reached.
        ValueError: if no model has this name, or no checkpoint this step; the message gives the nearest ones.
        FileNotFoundError: if ``name`` is a path without a model.
        DamagedModel: if a shipped file differs from what its card says.
    """
    folder = _folder_of(name)
    kept = None if checkpoint is None else weights_at(folder, checkpoint)
    with _quiet(), _no_bars():
        bridge = _open_toy(folder, kept, device) if is_native(folder) else _open_transformers(folder, device)
        make_attention_live(bridge)
    bridge.cfg.model_name = str(name)
    bridge.requires_grad_(gradients)
    return bridge.eval()


def _open_toy(folder: Path, kept: dict | None, device: str) -> "TransformerBridge":
    from safetensors.torch import load_file

    return open_native(folder, kept or load_file(folder / WEIGHTS), device)


def _open_transformers(folder: Path, device: str) -> "TransformerBridge":
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(folder), tokenizer=_open_tokenizer(folder), device=device)
    # A model of images has no embedding or unembedding of words to fold and centre.
    bridge.enable_compatibility_mode(no_processing=getattr(bridge.cfg, "is_visual_model", False))
    return bridge


def load_tokenizer(name: str | Path) -> "PreTrainedTokenizerBase":
    """Open a model's tokenizer alone. Takes the names that :func:`load_model` takes, and raises what it raises."""
    folder = _folder_of(name)
    with _quiet(), _no_bars():
        return _open_tokenizer(folder)


def hub_available(name: str = "gpt2") -> bool:
    """Whether a model of the hub can be opened: it is in the local cache, or the hub answers within two seconds."""
    if _cached_folder(name):
        return True
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(_hub_answers(name)), daemon=True)
    with _quiet():
        asking.start()
        asking.join(HUB_SECONDS + 0.5)  # a name server that does not answer has a timeout of its own
    return bool(answers and answers[0])


def _hub_answers(name: str) -> bool:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=HUB_SECONDS)
    except Exception:  # whatever went wrong, the answer is no
        return False
    return True


def _cached_folder(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    files = [try_to_load_from_cache(name, file) for file in ("config.json", WEIGHTS)]
    return Path(files[0]).parent if all(isinstance(file, str) for file in files) else None


def _folder_of(name: str | Path) -> Path:
    """Find or fetch the folder that a name stands for."""
    if name in available_models():
        folder = model_folder(str(name))
        check_files(folder)
        return folder
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if isinstance(name, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or folder.is_dir():
        raise FileNotFoundError(f"There is no model in {str(name)!r}: a model's folder holds a config.json.")
    if name in HUB_MODELS or "/" in name:
        return _fetch(name)
    known = (*available_models(), *HUB_MODELS)
    near = difflib.get_close_matches(name, known) or known
    raise ValueError(f"There is no model {name!r}. Near names: {', '.join(near)}.")


def _fetch(name: str) -> Path:
    cached = _cached_folder(name)
    if cached:
        return cached
    if not hub_available(name):
        raise HubUnavailable(name)
    from huggingface_hub import snapshot_download

    with _quiet(), _no_bars():
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns="onnx/*"))


def _open_tokenizer(folder: Path) -> "PreTrainedTokenizerBase | None":
    from transformers import AutoTokenizer

    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        return None

    return AutoTokenizer.from_pretrained(str(folder))


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_files(folder: Path) -> None:
    """Compare the files in a folder with the digests in its card.

    Raises:
        DamagedModel: naming the first file that is missing or differs, and the command that restores it.
    """
    for file, digest in json.loads((folder / CARD).read_text(encoding="utf-8"))["sha256"].items():
        if not (folder / file).is_file() or sha256(folder / file) != digest:
            raise DamagedModel(
                f"{file} of {folder.name!r} is missing or damaged. "
                f"Restore it with: git checkout -- utils/models/{folder.parent.name}/{folder.name}"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what other libraries print, log and warn of from the reader."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Turn off the progress bars of transformers and of the hub, which a notebook would show as widgets."""
    from transformers.utils import logging as settings

    shown = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            settings.enable_progress_bar()
