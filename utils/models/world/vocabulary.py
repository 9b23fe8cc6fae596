"""Every word that the micro-world can say, in a fixed order."""

from collections.abc import Iterator, Mapping

from utils.models.world import words
from utils.models.world.facts import FACTS
from utils.models.world.templates import knowledge, people, time, topics
from utils.models.world.topics import TOPIC_WORDS

BOS, UNKNOWN = "[BOS]", "[UNK]"
PUNCTUATION = (".", ",", ";")


def _texts(value: object) -> Iterator[str]:
    """Every text in a structure of tuples, sets and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_texts(key), *_texts(item))
    else:
        for item in value:
            yield from _texts(item)


def _constants(module: object) -> list[object]:
    return [value for name, value in vars(module).items() if name.isupper()]


_TEMPLATES = [text for module in (knowledge, people, time, topics) for text in _texts(_constants(module))]
_TEMPLATE_WORDS = {word for text in _TEMPLATES for word in text.split() if word != "|" and "{" not in word}
_TOPIC_TEXTS = [parts for topic in TOPIC_WORDS.values() for parts in topic.values()]
_FACT_TEXTS = list(FACTS.values())
_SLOT_TEXTS = _texts([_constants(words), _TOPIC_TEXTS, _FACT_TEXTS])
_SLOT_WORDS = {word for text in _SLOT_TEXTS for word in text.split()} - set(words.CYCLES)
_ANSWERS = {"he", "she", "his", "her", "the", "former", "latter"}

CONTENT_WORDS = tuple(sorted((_TEMPLATE_WORDS | _SLOT_WORDS | _ANSWERS) - set(PUNCTUATION)))
"""All words but the punctuation."""

VOCABULARY = (BOS, UNKNOWN, *PUNCTUATION, *CONTENT_WORDS)
"""All tokens; a token's id is its place in this tuple."""
