"""What is true of every token of a story: the ground truth for probes and sparse autoencoders.

Three kinds of latents. A *label* is told by a sentence and holds from the word that tells it to the sentence's end. A
*family* holds on all words of a sentence. A *class* belongs to a word whatever stands around it.
"""

from utils.models.world import words
from utils.models.world.facts import FACTS
from utils.models.world.people import FEMALE
from utils.models.world.topics import TOPIC_WORDS
from utils.models.world.vocabulary import PUNCTUATION, VOCABULARY


def _topic_classes() -> dict[str, frozenset[str]]:
    of_topic = {topic: {word for part in parts.values() for word in part} for topic, parts in TOPIC_WORDS.items()}
    everywhere = [word for several in of_topic.values() for word in several]
    shared = {word for word in everywhere if everywhere.count(word) > 1}
    classes = {f"word of {topic} alone": frozenset(several - shared) for topic, several in of_topic.items()}
    return {**classes, "word of two topics": frozenset(shared)}


WORD_CLASSES: dict[str, frozenset[str]] = {
    "female name": FEMALE,
    "male name": frozenset(words.MALE_NAMES),
    "place": frozenset(words.PLACES),
    "object": frozenset(words.OBJECTS),
    "adjective": frozenset(words.ADJECTIVES),
    "profession": frozenset(words.PROFESSIONS),
    "event": frozenset(words.EVENTS),
    "weekday": frozenset(words.WEEKDAYS),
    "month": frozenset(words.MONTHS),
    "city": frozenset(words.CAPITALS.values()),
    "country": frozenset(words.CAPITALS),
    "language": frozenset(words.LANGUAGES.values()),
    "builder": frozenset(words.BUILDERS),
    "word of a landmark": frozenset(word for landmark in FACTS["landmark"] for word in landmark.split()),
    "century": frozenset(words.CENTURIES),
    "year 00-49": frozenset(words.YEARS[:50]),
    "year 50-99": frozenset(words.YEARS[50:]),
    "punctuation": frozenset(PUNCTUATION),
    **_topic_classes(),
}
"""Class -> its words. A word may belong to several."""

CLASSES_OF = [tuple(name for name, members in WORD_CLASSES.items() if word in members) for word in VOCABULARY]
"""Token id -> the classes of its word."""
