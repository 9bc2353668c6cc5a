"""The notebooks run from top to bottom."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_runs_and_shows_pictures(path: Path) -> None:
    """A fresh kernel executes every cell, and the pictures that are stored are drawn again."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    stored = _pictures(notebook)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()

    assert stored >= 2
    assert _pictures(notebook) == stored


def _pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return sum("image/png" in o.get("data", {}) for o in outputs)
