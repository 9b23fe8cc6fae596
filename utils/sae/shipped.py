"""The dictionaries that come with the course."""

import difflib
from pathlib import Path

from utils.models.load import CARD, check_files
from utils.sae.dictionary import Dictionary
from utils.sae.saelens import CONFIG, open_dictionary

SHIPPED = Path(__file__).parents[1] / "models" / "shipped_dictionaries"


def available_dictionaries() -> list[str]:
    """The names of the shipped dictionaries. Each name starts with that of its model."""
    return sorted(card.parent.name for card in SHIPPED.glob(f"*/{CARD}"))


def load_dictionary(name: str | Path, *, device: str = "cpu") -> Dictionary:
    """Open a dictionary: one of the course by its name, or any folder in SAELens's format.

    Args:
        name: A name (see :func:`available_dictionaries`) or a folder.
        device: Where to put it.

    Returns:
        The dictionary in evaluation mode, without gradients. ``dictionary.site`` says where in the model it belongs.

    Raises:
        ValueError: if no dictionary has this name; the message gives near names.
        FileNotFoundError: if ``name`` is a path without a dictionary.
        DamagedModel: if a shipped file differs from what its card says.
    """
    if name in available_dictionaries():
        check_files(SHIPPED / name)
        return open_dictionary(SHIPPED / name, device)
    folder = Path(name).expanduser()
    if isinstance(name, Path) or (folder / CONFIG).is_file() or "/" in name or "\\" in name:
        return open_dictionary(folder, device)
    near = difflib.get_close_matches(name, available_dictionaries(), n=4) or available_dictionaries()
    raise ValueError(f"There is no dictionary {name!r}. Near names: {', '.join(near)}.")
