"""Text without people or facts: segments of random words that repeat, and sentences of one topic."""

from random import Random

from utils.models.world import words
from utils.models.world.sentence import Scene, Sentence, fill, scenery
from utils.models.world.templates.topics import TOPIC_TEMPLATES
from utils.models.world.topics import TOPIC_WORDS
from utils.models.world.vocabulary import CONTENT_WORDS

REPEAT_LENGTHS = (4, 14)


def repeat(rng: Random, scene: Scene) -> Sentence:
    """A segment of random words, twice or three times, with a ";" after each copy or without any."""
    length = rng.randint(*REPEAT_LENGTHS)
    segment = [rng.choice(CONTENT_WORDS) for _ in range(length)] + [";"] * (rng.random() < 0.5)
    copies = 2 if length > 5 else rng.randint(2, 3)
    return Sentence("repeat", " ".join(segment * copies), labels=(("second copy of a segment", len(segment)),))


def topic(rng: Random, scene: Scene) -> Sentence:
    """A sentence with words of the scene's topic."""
    parts = TOPIC_WORDS[scene.topic]
    nouns, verbs, adjectives = (rng.sample(parts[part], 3) for part in ("noun", "verb", "adjective"))
    slots = {
        **scenery(rng, scene),
        **dict(zip(("noun", "noun2", "noun3"), nouns, strict=True)),
        **dict(zip(("verb", "verb2", "verb3"), verbs, strict=True)),
        **dict(zip(("adjective", "adjective2", "adjective3"), adjectives, strict=True)),
        "N": rng.choice(scene.names),
        "profession": rng.choice(words.PROFESSIONS),
    }
    sentence = fill("topic", rng.choice(TOPIC_TEMPLATES), slots)
    own = {word for part in parts.values() for word in part}
    first = next(index for index, word in enumerate(sentence.words) if word in own)
    return Sentence(**{**vars(sentence), "labels": ((f"topic={scene.topic}", first),)})
