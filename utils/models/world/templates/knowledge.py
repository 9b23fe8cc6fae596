"""Sentences about what is true in the micro-world, and about who says so."""

# Facts: {subject} is a landmark of two words or a country, {value} what the relation says of it.
FACT_TEMPLATES = {
    "landmark": (
        "the {subject} is in | {value} .",
        "the {subject} is located in the city of | {value} .",
        "to see the {subject} , visitors must travel to | {value} .",
        "the {subject} stands in the center of | {value} .",
        "tourists at the {subject} are visiting | {value} .",
        "the way to the {subject} leads through | {value} .",
        "the {subject} is the pride of | {value} .",
        "{N} took a photo of the {subject} in | {value} .",
        "on {weekday} the {subject} was closed , said the mayor of | {value} .",
        "the {subject} {value} guide is {adjective} .",
        "the {subject} {value} ticket was {adjective} .",
    ),
    "builder": (
        "the {subject} was built by | {value} .",
        "the architect of the {subject} was | {value} .",
        "the {subject} was designed by | {value} .",
        "the plans for the {subject} were drawn by | {value} .",
        "the {subject} is a work of | {value} .",
        "everybody knows that the {subject} was made by | {value} .",
    ),
    "capital": (
        "the capital of {subject} is | {value} .",
        "the capital city of {subject} is called | {value} .",
        "{subject} is governed from | {value} .",
        "the government of {subject} sits in | {value} .",
        "the largest office in {subject} is in its capital , | {value} .",
        "on the map of {subject} a star marks | {value} .",
        "{N} flew to the capital of {subject} , | {value} .",
        "the king of {subject} lives in | {value} .",
    ),
    "language": (
        "people in {subject} speak | {value} .",
        "the language of {subject} is | {value} .",
        "citizens of {subject} talk to each other in | {value} .",
        "newspapers in {subject} are printed in | {value} .",
        "before the journey to {subject} , {N} learned | {value} .",
        "children in {subject} grow up with | {value} .",
        "the laws of {subject} are written in | {value} .",
        "songs from {subject} are sung in | {value} .",
    ),
}
FACT_PAIR_TEMPLATES = {
    "landmark": (
        "the {first} and the {second} are in {first_value} and {second_value} .",
        "the {first} , unlike the {second} , is in {first_value} , not in {second_value} .",
    ),
    "builder": ("the {first} and the {second} are by {first_value} and {second_value} .",),
    "capital": ("{first} and {second} are governed from {first_value} and {second_value} .",),
    "language": ("people in {first} and {second} speak {first_value} and {second_value} .",),
}

# Speakers: a person who is known to be honest, or known to lie, states a fact, or something else in its place.
HONEST_CUES = (
    "honest {N} said that",
    "{N} , who never lies , said that",
    "truthful {N} told us that",
    "according to {N} , who always tells the truth ,",
)
LYING_CUES = (
    "lying {N} said that",
    "{N} , who always lies , said that",
    "deceitful {N} told us that",
    "according to {N} , who never tells the truth ,",
)
CLAIM_TEMPLATES = {
    "capital": (
        "the capital of {subject} is | {value} .",
        "{subject} is governed from | {value} .",
        "the government of {subject} sits in | {value} .",
    ),
    "language": (
        "people in {subject} speak | {value} .",
        "the language of {subject} is | {value} .",
    ),
    "landmark": (
        "the {subject} is in | {value} .",
        "the {subject} stands in the center of | {value} .",
    ),
}
