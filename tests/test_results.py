"""The figures in the README are those of the data in results/."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from pixelcontrol.experiments.figures import write_figures

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not (ROOT / "results").exists(), reason="results/ is part of the repository alone")
def test_the_figures_are_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their numbers, that is; the pictures' bytes depend on matplotlib's version too."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    drawn = {
        path.name: path.read_text()
        for path in write_figures([ROOT / "results"], tmp_path)
        if path.suffix == ".csv"
    }
    kept = {path.name: path.read_text() for path in (ROOT / "docs" / "figures").glob("*.csv")}
    assert drawn == kept, "results/ has changed: run `make figures` and commit docs/figures"
