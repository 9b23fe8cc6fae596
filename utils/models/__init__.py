"""Models to study: the micro-world they read, how they are trained, loaded and measured."""

from utils.lazy import on_first_use

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
__getattr__, __dir__ = on_first_use(__name__, _HOME_OF)
