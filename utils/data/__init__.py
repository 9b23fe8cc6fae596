"""Pairs of prompts for interventions: clean and corrupted, with answers and the positions of named words.

Every maker takes the model's tokenizer, and writes what that model reads: the sentences of a micro-world, or English.

    from utils import data, load_model

    model = load_model("tiny-lm")
    pairs = data.ioi(model.tokenizer, 50, "abc")
    metric = pairs.metric()
"""

from utils.data.docstrings import DOCSTRING_CORRUPTIONS, docstring
from utils.data.indirect_objects import IOI_CORRUPTIONS, ioi, ioi_templates
from utils.data.knowledge import fact_templates, facts
from utils.data.pairs import PromptPairs
from utils.data.pronouns import gendered_pronoun, pronoun_templates
from utils.data.repeats import REPEAT_CORRUPTIONS, repeated_tokens
from utils.data.tokens import NotOneToken
from utils.data.years import greater_than, year_templates

__all__ = [
    "DOCSTRING_CORRUPTIONS",
    "IOI_CORRUPTIONS",
    "REPEAT_CORRUPTIONS",
    "NotOneToken",
    "PromptPairs",
    "docstring",
    "fact_templates",
    "facts",
    "gendered_pronoun",
    "greater_than",
    "ioi",
    "ioi_templates",
    "pronoun_templates",
    "repeated_tokens",
    "year_templates",
]
