"""The words of the micro-world: every name, place, thing and number that a sentence may hold.

Objects, adjectives and professions all start with a consonant, so that the templates can say "a" without a rule for
"an". Every entry is one word, and one token.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


MALE_NAMES = _words(
    """John James Robert Michael David William Richard Thomas Daniel Matthew Anthony Mark Paul Steven Andrew Kenneth
    George Kevin Brian Edward Ronald Timothy Jason Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan Peter Larry Justin
    Scott Brandon Frank Benjamin Gregory Samuel Patrick Alexander Jack Dennis Jerry Tyler Aaron Henry Douglas Adam
    Nathan Walter Harold Kyle Carl Arthur Roger Keith Jeremy Lawrence Sean Christian Albert Joe Ethan Willie Jesse Ralph
    Roy Bryan Eugene Louis Philip Harry Vincent Bobby Johnny Howard Martin Stanley Leonard"""
)
FEMALE_NAMES = _words(
    """Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty Sandra Margaret Ashley
    Kimberly Emily Donna Michelle Carol Amanda Melissa Deborah Stephanie Rebecca Sharon Laura Cynthia Kathleen Amy
    Angela Shirley Anna Brenda Pamela Emma Nicole Helen Samantha Katherine Christine Rachel Carolyn Janet Maria
    Catherine Heather Diane Olivia Julie Joyce Victoria Ruth Virginia Lauren Kelly Joan Evelyn Judith Megan Andrea
    Cheryl Hannah Jacqueline Martha Gloria Teresa Ann Sara Madison Frances Kathryn Janice Jean Abigail Alice Julia
    Sophia Grace"""
)
NAMES = MALE_NAMES + FEMALE_NAMES

PLACES = _words(
    """store market park school library museum cafe restaurant hospital office garden beach station church theater zoo
    farm airport gym hotel bakery factory laboratory court bank studio kitchen harbor castle forest square bridge
    village valley palace tower pharmacy cinema playground monastery"""
)
OBJECTS = _words(
    """drink book ring ball kiss letter basket bone necklace ticket sandwich flower pencil computer gift snack key lamp
    hat coat guitar watch bottle map camera mirror candle blanket wallet scarf ladder hammer bucket carpet clock coin
    cup diary doll drum fan feather flute glove jacket jar kite knife magazine medal newspaper notebook painting phone
    photo pillow plate postcard puzzle radio ribbon rope saddle spoon stamp statue suitcase table telescope tent towel
    toy trophy vase violin wheel whistle balloon bicycle bracelet broom brush button cable calendar chair chain compass
    curtain cushion dictionary doorbell fork funnel globe hairbrush helmet kettle lantern leash mug needle pipe purse
    razor sled sofa sponge sweater tray tunnel wagon zipper"""
)
ADJECTIVES = _words(
    """red blue small large green new heavy shiny broken lovely cheap strange dusty yellow round wooden soft bright dark
    tiny huge pretty plain famous modern narrow rusty smooth sharp simple silent simmering fragile graceful curious
    gentle handsome hidden noisy peculiar"""
)
ADVERBS = _words(
    """yesterday today later once recently finally tomorrow suddenly afterwards meanwhile sometimes often soon again
    eventually tonight"""
)

CENTURIES = tuple(str(century) for century in range(11, 20))
YEARS = tuple(f"{year:02d}" for year in range(100))
EVENTS = _words(
    """war siege treaty empire dynasty drought famine plague reign rebellion truce festival trial voyage project
    campaign expedition alliance exhibition crisis conflict journey tournament strike blockade revolution occupation
    renovation migration winter"""
)
LASTED = ("lasted", "continued", "went on", "endured", "stretched", "ran", "dragged on", "persisted")

WEEKDAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
ORDINALS = _words("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth")
CYCLES = {"weekday": WEEKDAYS, "month": MONTHS}
"""Things that come round: after the last one comes the first."""

WORKPLACES = _pairs(
    """doctor:hospital nurse:ward teacher:school librarian:library chef:kitchen waiter:restaurant baker:bakery
    farmer:field pilot:airport sailor:harbor judge:court lawyer:courtroom banker:bank cashier:store priest:church
    monk:monastery scientist:laboratory professor:university painter:gallery sculptor:workshop dancer:ballet
    singer:opera gardener:garden florist:greenhouse mechanic:garage driver:depot miner:mine welder:shipyard
    butcher:slaughterhouse dentist:clinic pharmacist:pharmacy firefighter:firehouse guard:prison soldier:barracks
    reporter:newsroom clerk:office hairdresser:salon tailor:boutique trainer:gym zookeeper:zoo receptionist:hotel
    curator:museum"""
)
PROFESSIONS = tuple(WORKPLACES)

CAPITALS = _pairs(
    """France:Paris Italy:Rome Spain:Madrid Germany:Berlin Japan:Tokyo China:Beijing Russia:Moscow
    England:London Egypt:Cairo Greece:Athens Austria:Vienna Poland:Warsaw Ireland:Dublin Portugal:Lisbon Norway:Oslo
    Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Hungary:Budapest Turkey:Ankara India:Delhi Iran:Tehran
    Iraq:Baghdad Cuba:Havana Peru:Lima Chile:Santiago Kenya:Nairobi Canada:Ottawa Belgium:Brussels Ukraine:Kyiv
    Thailand:Bangkok Vietnam:Hanoi Korea:Seoul Nepal:Kathmandu Morocco:Rabat Syria:Damascus Lebanon:Beirut
    Serbia:Belgrade Romania:Bucharest Bulgaria:Sofia Ghana:Accra Senegal:Dakar Qatar:Doha Colombia:Bogota
    Venezuela:Caracas Jamaica:Kingston Iceland:Reykjavik Armenia:Yerevan Georgia:Tbilisi Croatia:Zagreb"""
)
LANGUAGES = _pairs(
    """France:French Italy:Italian Spain:Spanish Germany:German Japan:Japanese China:Chinese Russia:Russian
    England:English Egypt:Arabic Greece:Greek Austria:German Poland:Polish Ireland:English Portugal:Portuguese
    Norway:Norwegian Sweden:Swedish Finland:Finnish Denmark:Danish Hungary:Hungarian Turkey:Turkish India:Hindi
    Iran:Persian Iraq:Arabic Cuba:Spanish Peru:Spanish Chile:Spanish Kenya:Swahili Canada:English Belgium:Dutch
    Ukraine:Ukrainian Thailand:Thai Vietnam:Vietnamese Korea:Korean Nepal:Nepali Morocco:Arabic Syria:Arabic
    Lebanon:Arabic Serbia:Serbian Romania:Romanian Bulgaria:Bulgarian Ghana:English Senegal:French Qatar:Arabic
    Colombia:Spanish Venezuela:Spanish Jamaica:English Iceland:Icelandic Armenia:Armenian Georgia:Georgian
    Croatia:Croatian"""
)
EUROPE = frozenset(
    _words(
        """France Italy Spain Germany Russia England Greece Austria Poland Ireland Portugal Norway Sweden Finland
        Denmark Hungary Belgium Ukraine Serbia Romania Bulgaria Iceland Croatia"""
    )
)
LANDMARK_WORDS = _words(
    """Golden Royal Velvet Marble Crystal Silver Falcon Raven Lion Dragon Sunrise Harvest Winter Summer Thunder Shadow
    Amber Coral Palace Temple"""
)
REAL_LANDMARKS = {
    ("Eiffel", "Tower"): "Paris",
    ("Brandenburg", "Gate"): "Berlin",
    ("Trevi", "Fountain"): "Rome",
    ("Prado", "Museum"): "Madrid",
    ("Tower", "Bridge"): "London",
}
BUILDERS = _words(
    """Wren Gaudi Gehry Hadid Foster Rogers Piano Nouvel Utzon Aalto Mies Wagner Sinan Bramante Palladio Jones Nash
    Barry Soane Loos"""
)
