"""The figures in the README, and the tables in docs/results.md, are those of the data in results/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from pixelcontrol.experiments.figures import write_figures
from pixelcontrol.experiments.runs import read_table

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "results").exists(), reason="part of the repository alone")


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


@pytest.mark.parametrize(
    ("section", "runs", "fewest"),
    [
        ("The quick start", "drqv2", 25),
        ("With what the body feels", "drqv2_proprio", 5),
        ("With the simulator's state", "privileged", 18),
    ],
)
def test_the_tables_of_the_quick_start_are_those_of_the_runs(section: str, runs: str, fewest: int) -> None:
    """Rows "TASK, seed N", and "seed N" below them, of the first table: a mean for each column, the last perhaps
    with its deviation. What else stands there has no data in results/."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").partition(f"## {section}\n")[2]
    head, *lines = re.search(r"(?m)^\| frames \|.*\n(\|.*\n)+", text)[0].splitlines()  # type: ignore[index]
    frames = [int(cell.replace(",", "")) for cell in head.split("|")[2:-1] if re.fullmatch(r" [\d,]+ ", cell)]
    task, compared = "", 0
    for line in lines:
        label, *cells = [cell.strip() for cell in line.split("|")[1:]]
        named = re.fullmatch(r"(?:(\w+), )?seed (\d)", label)
        task = (named[1] or task) if named else ""
        if not named or not task:
            continue
        table = ROOT / "results" / "quick" / f"{runs}_{task}_{named[2]}.csv"
        found = {int(row["frame"]): row for row in read_table(table)}
        for frame, cell in zip(frames, cells, strict=False):
            row, (mean, *deviation) = found[frame], cell.split(" +- ")
            assert mean == f"{float(row['episode_return']):.0f}", (label, frame)
            assert deviation in ([], [f"{float(row['episode_return_std']):.0f}"]), (label, frame)
        compared += 1
    assert compared >= fewest


@pytest.mark.parametrize(("column", "runs"), [(2, "drqv2"), (4, "drqv2_proprio"), (5, "privileged")])
def test_the_readmes_table_is_of_all_seeds(column: int, runs: str) -> None:
    """A cell is the mean return after 240,000 frames, and in brackets how many seeds there are."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told, found = {}, {}
    for line in re.findall(r"(?m)^\| `\w+` \|.*\|$", readme):
        cells = [cell.strip() for cell in line.split("|")]
        task = cells[1].strip("`")
        seeds = [
            float(row["episode_return"])
            for table in (ROOT / "results" / "quick").glob(f"{runs}_{task}_[0-9].csv")
            for row in read_table(table)
            if int(row["frame"]) == 240_000
        ]
        told[task] = cells[column]
        found[task] = f"{sum(seeds) / len(seeds):.0f} ({len(seeds)})" if seeds else ""
    assert len(told) == 20
    assert told == found
