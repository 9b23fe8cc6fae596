"""Makes this folder's ``plain_edges`` importable: with pytest's importlib mode, neighbours are not otherwise."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
