"""Makes the neighbours of this folder's parent importable, as its own conftest does when tests start there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
