"""The topics of the micro-world: the words that go together.

Some nouns and verbs belong to two topics that never meet in one document ("bank" to water and finance, "captain" to
sports and war). Each is one word with two unrelated meanings, and a model has more topics and classes of words to tell
apart than it has room for: both are reasons for a neuron to stand for several unrelated things.
"""


def _parts(nouns: str, verbs: str, adjectives: str) -> dict[str, tuple[str, ...]]:
    return {"noun": tuple(nouns.split()), "verb": tuple(verbs.split()), "adjective": tuple(adjectives.split())}


TOPIC_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "water": _parts(
        """river lake stream sea ocean boat ship fish flood rain bank current wave pool tide shore island anchor
        sailboat whale ferry puddle waterfall canal dam raft""",
        "flowed sank swam drifted rose froze splashed floated leaked poured drowned",
        "deep wet calm muddy shallow salty tidal frozen",
    ),
    "finance": _parts(
        """loan bond share investor trader currency dollar euro bank current stock interest price rate profit fund
        mortgage budget debt creditor broker salary tax dividend auditor note""",
        "rose fell crashed traded paid invested borrowed doubled defaulted matured",
        "rich taxable fiscal bankrupt profitable costly solvent volatile",
    ),
    "sports": _parts(
        """team player coach goal referee stadium match captain defense attack field pool fan league striker score
        goalkeeper champion tournament racket helmet penalty rival season athlete pitch""",
        "won lost kicked scored trained dribbled ran jumped tackled sprinted",
        "fast athletic tired amateur professional unbeaten nervous competitive",
    ),
    "war": _parts(
        """soldier army tank general bomb battle captain defense attack field rifle enemy fort trench medal troop
        sergeant cannon fleet spy bullet regiment sword shield bunker conquest""",
        "fought marched fired retreated surrendered won lost attacked invaded exploded",
        "brave wounded armed fierce bloody hostile ruthless victorious",
    ),
    "music": _parts(
        """band concert note key violin drum song singer score pitch melody rhythm choir piano orchestra chord tune
        composer trumpet record scale rock bass stage album guitarist""",
        "played sang echoed rehearsed resonated hummed ended strummed performed",
        "loud melodic acoustic harmonic popular soulful classical rhythmic",
    ),
    "science": _parts(
        """atom cell experiment theory scale mass particle reaction molecule electron sample laser microscope gas matter
        energy enzyme formula compound crystal acid element proton record light vacuum""",
        "reacted decayed glowed exploded froze oscillated dissolved expanded collided",
        "radioactive chemical magnetic stable molecular nuclear dense inert",
    ),
    "nature": _parts(
        """tree leaf root rock bird bear branch seed mountain wolf deer bush meadow bark trunk insect nest forest bass
        moss cliff fox eagle shade squirrel pine""",
        "grew bloomed howled fell ran hunted nested rustled climbed slept",
        "wild leafy mossy rocky tall furry barren shady",
    ),
    "cooking": _parts(
        """soup oven recipe onion pepper root leaf sauce dough butter salt pan pot spice roast cheese garlic noodle
        stew cake pastry rice bean tomato batch mint""",
        "boiled baked simmered burned rose fried melted steamed cooled cooked",
        "spicy sweet salty fresh crispy tasty bitter delicious",
    ),
    "law": _parts(
        """lawsuit judge jury witness verdict trial sentence appeal bar case charge contract statute court prosecutor
        defense clause bond suspect warrant evidence testimony felony plea bench brief""",
        "testified objected appealed pleaded ruled adjourned won lost sued settled",
        "guilty legal unlawful binding judicial liable strict void",
    ),
    "computing": _parts(
        """program server file mouse network bug memory keyboard virus code tablet screen charge bar server database
        cursor folder router password pixel cache batch case processor disk""",
        "crashed compiled loaded ran failed booted rebooted printed froze scrolled",
        "digital virtual wireless encrypted corrupt portable recursive binary",
    ),
}
TOPICS = tuple(TOPIC_WORDS)
