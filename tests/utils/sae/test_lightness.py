"""What `utils.sae` costs to import."""

import subprocess
import sys


def test_the_package_is_light_and_its_names_are_all_there():
    script = (
        "import sys, utils.sae as s; print([m for m in ('torch', 'sae_lens', 'transformer_lens') if m in sys.modules]);"
        "[getattr(s, name) for name in s.__all__]; print([m for m in ('sae_lens', 'plotly') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.stdout.split("\n")[:2] == ["[]", "[]"], result.stdout + result.stderr
