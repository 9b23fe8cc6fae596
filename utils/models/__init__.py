"""Models to study: the micro-world they read, how they are trained, loaded and measured."""

import importlib
import importlib.util
from typing import Any

_HOME_OF = {
    "HubUnavailable": "load",
    "available_models": "load",
    "check_words": "tokenizer",
    "checkpoint_steps": "load",
    "hub_available": "load",
    "load_model": "load",
    "load_tokenizer": "load",
    "date_prompts": "prompts",
    "fact_prompts": "prompts",
    "gendered_prompts": "prompts",
    "indirect_giver_prompts": "prompts",
    "ioi_prompts": "prompts",
    "repeated_tokens": "prompts",
    "speaker_prompts": "prompts",
    "story_batch": "prompts",
    "workplace_prompts": "prompts",
    "year_prompts": "prompts",
}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it, or a module, the first time it is asked for."""
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"utils.models.{_HOME_OF[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"utils.models.{name}"):
        return importlib.import_module(f"utils.models.{name}")
    raise AttributeError(f"module 'utils.models' has no attribute {name!r}")
