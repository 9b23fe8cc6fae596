"""The course's library: models to study and the reference implementations that the notebooks build by hand.

``import utils`` is light. Everything that needs torch is imported when it is first used.
"""

from utils.lazy import on_first_use

_HOME_OF = {
    "HubUnavailable": "models.load",
    "available_models": "models.load",
    "check_words": "models.tokenizer",
    "hub_available": "models.load",
    "load_model": "models.load",
    "load_tokenizer": "models.load",
}
__all__ = sorted(_HOME_OF)
__getattr__, __dir__ = on_first_use(__name__, _HOME_OF)
