"""The sentence templates of the IOI micro-language, as data.

An opening names two people, ``{A}`` and ``{B}``. An ending names one of them again, ``{S}`` (the subject), and asks
after ``|`` for the other, ``{I}`` (the indirect object). Every opening goes with every ending.
"""

SHORT_OPENINGS = (
    "when {A} and {B} arrived at the {place} ,",
    "as {A} and {B} walked past the {place} ,",
    "{A} and {B} shared a table at the {place} .",
    "after {A} helped {B} at the {place} ,",
    "{A} sat next to {B} in the {place} , and",
    "{A} waited for {B} near the {place} . {adverb}",
    "{A} had never met {B} before , but",
    "because {A} and {B} were neighbors ,",
    "{adverb} {A} and {B} cleaned the {adjective} {place} , and",
    "{A} , a friend of {B} , came to the {place} , where",
    "{A} called {B} from the {place} , and",
    "{A} and {B} could not find the {object} at the {place} .",
    "during lunch {A} told {B} about the {place} , then",
    "once {A} and {B} had opened the {place} ,",
    "{A} thanked {B} , and",
    "{A} and {B} were late , so",
    "{A} knew that {B} liked the {adjective} {place} , so",
    "before lunch {A} met {B} at the {place} , and",
    "if {A} and {B} were lucky ,",
    "{A} and {B} went to the {place} with a {adjective} {object} , and",
)
"""Openings that name both people within their first six words."""
LONG_OPENINGS = (
    "at the {place} , {A} and {B} played cards , then",
    "the {place} was closed , so {A} and {B} went home , and",
    "{A} found a {adjective} {object} while {B} slept , so",
    "it was raining when {A} and {B} left the {place} , so",
    "in the {place} {A} talked to {B} , then",
    "the {object} in the {place} belonged to {A} and {B} , so",
    "{A} looked for the {object} and {B} looked for the {object} , but",
    "there was a {adjective} {object} near the {place} , so {A} and {B} stopped , and",
    "not far from the {place} , {A} saw {B} . {adverb}",
    "while {A} was working in the {place} , {B} came home , and",
    "at home {A} painted a {object} with {B} . {adverb}",
    "the {adjective} {place} was full when {A} and {B} came in , but",
)
OPENINGS = SHORT_OPENINGS + LONG_OPENINGS
NEW_OPENINGS = (
    "before {A} and {B} left the {place} ,",
    "{A} cleaned the {object} with {B} , then",
    "near the {place} {A} met {B} , so",
    "{A} and {B} walked home from the {place} , but",
)
"""Openings that no training sentence has. Their words occur in other sentences."""

ENDINGS = (
    "{S} gave a {object} to | {I} .",
    "{S} gave the {adjective} {object} to | {I} .",
    "{S} lent a {object} to | {I} .",
    "{S} showed the {object} to | {I} .",
    "{S} threw a {adjective} {object} to | {I} .",
    "{S} sold the {object} to | {I} .",
    "{S} read a letter to | {I} .",
    "{S} waved at | {I} .",
    "{S} made a {object} for | {I} .",
    "{S} shared a {adjective} {object} with | {I} .",
    "{S} carried the {object} across the {place} to | {I} .",
    "{S} said goodbye to | {I} .",
    "{S} wrote a song about | {I} .",
    "{S} quietly handed a {object} to | {I} .",
    "{S} smiled at | {I} .",
    "{S} bought a {adjective} {object} for | {I} .",
    "{S} left the {object} in the {place} for | {I} .",
    "{S} passed a letter to | {I} .",
)

ORDER_ENDINGS = ("{S} stayed .", "{S} left .", "{S} came too .")
"""The one who was named first stays, the one named second leaves, a third person comes too."""

LEAD_IN = "{adverb} ,"
"""May stand before an opening that does not start with an adverb. It moves every position by two."""
