"""What is kept of a notebook's outputs."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from course.execute import WIDGET, execute, is_noise, tidy


def widget(text):
    return new_output("display_data", {WIDGET: {"model_id": "f3b0"}, "text/plain": text})


@pytest.mark.parametrize("text", ["patching:   0%|          | 0/3 [00:00<?, ?it/s]", "patching: 1it [00:02,  2.1s/it]"])
def test_a_progress_bar_is_no_result(text):
    assert is_noise(widget(text))


def test_complaints_of_the_picture_maker_are_dropped_and_others_kept():
    said = 'File "choreographer/_brokers/_async.py", line 1\nJSONError decoding message'
    assert is_noise(new_output("stream", name="stderr", text=said))
    assert not is_noise(new_output("stream", name="stderr", text="a warning of the notebook's own"))


def test_other_widgets_keep_their_text_and_lose_their_random_id():
    output = widget("Explorer(layer 2, head 1)")
    assert not is_noise(output)
    assert tidy(output).data == {"text/plain": "Explorer(layer 2, head 1)"}


def test_a_loop_with_a_bar_leaves_only_what_it_prints():
    code = "from tqdm.auto import tqdm\nfor i in tqdm(range(3)):\n    pass\nprint('done')"
    notebook = execute(new_notebook(cells=[new_code_cell(code)]), where="here", pictures=False)
    kept = [o for o in notebook.cells[0].outputs if o.output_type != "stream" or o.name != "stderr"]
    assert [o.text for o in kept] == ["done\n"]
    nbformat.validate(notebook)
