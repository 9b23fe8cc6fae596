"""The families of tasks, one a file."""

from utils.models.mystery.families.adjacent_pair import AdjacentPair
from utils.models.mystery.families.after_marker import AfterMarker
from utils.models.mystery.families.asked_class import AskedClass
from utils.models.mystery.families.best_of_pairs import BestOfPairs
from utils.models.mystery.families.control_switch import ControlSwitch
from utils.models.mystery.families.count_above import CountAbove
from utils.models.mystery.families.count_modulo import CountModulo
from utils.models.mystery.families.digit_difference import DigitDifference
from utils.models.mystery.families.exactly_one import ExactlyOne
from utils.models.mystery.families.most_frequent import MostFrequent
from utils.models.mystery.families.pair_lookup import PairLookup
from utils.models.mystery.families.pointer_chase import PointerChase
from utils.models.mystery.families.same_places import SamePlaces
from utils.models.mystery.families.shared_token import SharedToken
from utils.models.mystery.families.task import Deck, Task
from utils.models.mystery.families.weighted_vote import WeightedVote

FAMILIES: tuple[type[Task], ...] = (
    AdjacentPair,
    AfterMarker,
    AskedClass,
    BestOfPairs,
    ControlSwitch,
    CountAbove,
    CountModulo,
    DigitDifference,
    ExactlyOne,
    MostFrequent,
    PairLookup,
    PointerChase,
    SamePlaces,
    SharedToken,
    WeightedVote,
)

__all__ = ["FAMILIES", "Deck", "Task"]
