"""Every solution notebook runs from top to bottom, offline, and earns every point."""

import pytest

from course.build import solution_notebook
from course.catalog import graders, sources
from course.execute import execute
from course.run import earned


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.id)
def test_it_runs_and_passes_its_own_checks(source):
    notebook = execute(solution_notebook(source), where=source.name, pictures=False)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not [o for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"], cell.source
    assert earned(notebook) == {exercise.name: graders()[exercise.name].points for exercise in source.exercises}
