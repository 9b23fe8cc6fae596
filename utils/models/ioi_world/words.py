"""The words of the IOI micro-language: names, things, and every token in a fixed order.

Objects and adjectives start with a consonant, so that a template can say "a" without a rule for "an".
"""

from utils.models.ioi_world.templates import ENDINGS, NEW_OPENINGS, OPENINGS, ORDER_ENDINGS


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    """Abdul Adela Adrian Agnes Aisha Akira Alba Albert Alma Amara Amina Andre Anika Anil Anton Ariel Arjun Asha Astrid
    Basil Beata Beatriz Berta Bianca Bjorn Boris Bruno Camila Carla Carlos Carmen Casper Cedric Chen Chloe Clara
    Conrad Cora Daniela Dario Darius David Deepa Delia Denis Diego Dmitri Dora Ebba Edgar Edith Elena Elias Elsa
    Emil Enzo Erik Estela Esther Eugene Eva Fabio Farid Fatima Felix Fiona Flora Florian Freya Frida Gabriel Gemma
    Georg Gina Gita Gloria Gregor Greta Gustav Halima Hana Hans Hassan Hector Heidi Helga Henrik Hilda Hiro Hugo
    Ibrahim Ida Igor Ilse Imran Ines Inga Ingrid Irene Iris Isaac Ismael Ivan Jana Jasper Jin Joan Joel Johan Jonas
    Judit Julia Kaito Kamala Karim Karl Katya Kenji Khalid Kira Klara Kofi Lara Lars Layla Leila Lena Leon Lina
    Linus Livia Lorenzo Luca Lucia Luis Lukas Magnus Maja Malik Marco Maria Marina Marta Mateus Matteo Maya Mei
    Mikhail Milan Mina Mira Miriam Mohamed Nadia Naomi Nasser Neha Nia Nikola Nils Nina Noah Nora Odile Olaf Oleg
    Olga Oliver Omar Oscar Otto Pablo Paolo Paula Pavel Pedro Peter Petra Pia Priya Quentin Rafael Ramon Rania Ravi
    Renata Rita Robin Rohan Roman Rosa Ruben Ruth Sabine Salma Samir Samuel Sanjay Sara Selma Sergio Sigrid Silvia
    Simon Sita Sofia Soren Stella Sunil Sven Tamara Tanya Tariq Tessa Theo Thomas Tilda Tomas Tora Ugo Uma Umar
    Ursula Valentin Vanessa Vera Victor Vikram Viola Vito Walter Wanda Wei Wendel Wilma Wim Xavier Yann Yara Yasmin
    Yolanda Yuki Yusuf Zara Zeno Zoe Zoltan"""
)
PLACES = _words(
    """bakery bridge castle cinema clinic college factory fountain gallery harbor kitchen lighthouse market meadow
    museum palace pharmacy station stadium tavern temple theater"""
)
OBJECTS = _words(
    """ball blanket book bottle camera candle coin cup drum flute hammer hat kite knife lamp map mirror painting pencil
    ring rope scarf stamp ticket violin"""
)
ADJECTIVES = _words("bright broken dark heavy huge lovely new plain quiet red round small warm white")
ADVERBS = _words("afterwards again later soon suddenly today yesterday")

BOS, UNKNOWN = "[BOS]", "[UNK]"
PUNCTUATION = _words(". , ;")


def _template_words() -> set[str]:
    templates = (*OPENINGS, *NEW_OPENINGS, *ENDINGS, *ORDER_ENDINGS)
    return {word for template in templates for word in template.split() if word != "|" and "{" not in word}


CONTENT_WORDS = tuple(sorted((_template_words() | {*PLACES, *OBJECTS, *ADJECTIVES, *ADVERBS}) - set(PUNCTUATION)))
"""All words but the names and the punctuation."""

VOCABULARY = (BOS, UNKNOWN, *PUNCTUATION, *CONTENT_WORDS, *NAMES)
"""All tokens; a token's id is its place in this tuple, and the names come last."""
ID_OF = {word: index for index, word in enumerate(VOCABULARY)}
