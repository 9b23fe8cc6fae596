"""Docstrings: a Python function's third ``:param`` asks for the name of its third argument.

The task: Heimersheim & Janiak 2023, https://www.alignmentforum.org/posts/u6KXXmKFbXfWzoAXn. Only models that have read
code can do it: the micro-worlds have no docstrings.
"""

from random import Random
from typing import TYPE_CHECKING

from utils.data.drafts import Draft, assemble
from utils.data.pairs import PromptPairs
from utils.data.tokens import ENGLISH, language_of, singles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DOCSTRING_CORRUPTIONS = {
    "answer": "one token differs: the third argument of the definition, which is then the right answer",
    "definition": "all arguments of the definition are others: the docstring describes another function",
    "docstring": "the docstring describes two other arguments: nothing says that the third comes next",
}

TEMPLATE = '''def {f}(self, {A}, {B}, {C}, {D}):
    """{w} {x} {y}

    :param {P}: {u} {v}
    :param {Q}: {s} {t}
    :param'''
"""What is asked: everything up to the name of the third argument."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ARGUMENTS = _words(
    """account action amount author base body border bottom branch bucket buffer cache card category cell center
channel child client code color column command comment config content context copy cost count data date default depth
device directory document end entry error event field file filter flag font format frame function grid group handle head
header height host icon image index input item key label language layer length level limit line link list load lock log
map mask match matrix menu message method mode model module name node number object offset option order output owner
page parent part password path pattern period point port position post prefix price process product profile project
property query range rate record region report request response result root route row rule sample scale schema scope
score section seed session shape side signal size source space speed stage start state step stream string style table
tag target task template test text theme time title token tool top total type unit update user value version view
volume weight width window word year zone"""
)
WORDS = _words(
    """air animal apple arm bank bird board boat book bridge brush camera chair city clock cloud coast coffee
corner country crowd dance desert dinner doctor dream engine evening farm field finger fire flower forest garden glass
gold grass hall heart hill horse hotel island journey kitchen lake letter market meat metal moon morning mountain
music ocean office oil park picture piece plane plant river road room rose salt sand school sea season ship shoulder
silver sister snow song spring star station stone storm street summer sun teacher train tree uncle valley village wall
water weather wind winter wood"""
)
_WORD_SLOTS = "fwxyuvst"


def docstring(
    tokenizer: "PreTrainedTokenizerBase", n: int, corruption: str = "answer", *, seed: int = 0
) -> PromptPairs:
    """Definitions with a docstring that stops before the name of the third argument.

    Named positions: "A_def", "B_def", "C_def" (the answer), "D_def", "A_doc", "B_doc", "END".

    Args:
        tokenizer: The tokenizer of a model that has read code, such as GPT-2's.
        n: How many pairs.
        corruption: One of ``DOCSTRING_CORRUPTIONS``.
        seed: The same seed gives the same pairs.

    Raises:
        ValueError: if the corruption is not known, or the tokenizer is that of a micro-world.
        NotOneToken: if there are too few argument names that are one token of this tokenizer.
    """
    if corruption not in DOCSTRING_CORRUPTIONS:
        raise ValueError(f"corruption must be one of {', '.join(DOCSTRING_CORRUPTIONS)}, not {corruption!r}")
    language = language_of(tokenizer)
    if language != ENGLISH:
        raise ValueError(f"the {language} model has never read a docstring: take the tokenizer of a model of code")
    arguments = singles(tokenizer, ARGUMENTS, "argument names", at_least=8)
    words = singles(tokenizer, WORDS, "words", at_least=len(_WORD_SLOTS))
    drafts = []
    for row in range(n):
        rng = Random(f"docstring {seed} {row}")
        a, b, c, d, *others = rng.sample(arguments, 8)
        slots = {"A": a, "B": b, "C": c, "D": d, "P": a, "Q": b}
        slots |= dict(zip(_WORD_SLOTS, rng.sample(words, len(_WORD_SLOTS)), strict=True))
        corrupted = {
            "answer": {"C": others[2]},
            "definition": dict(zip("ABCD", others, strict=True)),
            "docstring": dict(zip("PQ", others, strict=False)),
        }[corruption]
        named = {f"{slot}_def": slot for slot in "ABCD"} | {"A_doc": "P", "B_doc": "Q"}
        drafts.append(Draft(TEMPLATE, slots, corrupted, c, others[2], named, prose=False))
    return assemble(f"docstring ({corruption})", tokenizer, drafts)
