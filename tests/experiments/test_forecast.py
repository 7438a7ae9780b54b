"""How far a sweep's runs are, and what is ahead."""

import torch

from pixelcontrol.experiments.forecast import Progress, describe, last_row, progress
from pixelcontrol.experiments.plan import Variant, plan
from pixelcontrol.logger import CsvLog

DRQV2 = Variant("drqv2")


def test_a_plan_for_the_cpu_counts_hours_of_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "a tenth of the paper's" in describe(plan(["cheetah_run"], [DRQV2], [0], tmp_path, {}), 1, "cpu")


def test_the_quick_preset_is_as_fast_as_it_was_measured(tmp_path):
    """263 + 296 frames/s, each over a tenth of an hour's frames."""
    variants = [Variant("drqv2", "quick", {"frames": 94_680}), Variant("sac", "quick", {"frames": 106_560})]
    assert "0.2 device hours, 0.1 with 2 at a time" in describe(
        plan(["cheetah_run"], variants, [0], tmp_path, {}), 2, "cpu"
    )


def test_progress_reads_whole_lines_only(tmp_path):
    (job,) = plan(["toy_reach"], [DRQV2], [0], tmp_path, {})
    job.directory.mkdir()
    assert progress(job) == Progress(0, None, None, None)
    (job.directory / "train.csv").write_text("frame,update,frames_per_second\n10,0,900\n")
    (job.directory / "eval.csv").write_text("frame,episode_return\n16,5.5\n")
    assert progress(job) == Progress(16, 5.5, None, None)  # nothing is learned yet
    with (job.directory / "train.csv").open("a") as file:
        file.write("20,5,60.0\n30,7")
    assert progress(job) == Progress(20, 5.5, None, 60.0)
    table = job.directory / "eval.csv"
    table.unlink()
    log = CsvLog(table, ("frame", "episode_return", "success_rate"))
    log.append({"frame": 16, "episode_return": 5.5, "success_rate": 0.25})
    assert progress(job).success_rate == 0.25
    log.append({"frame": 20, "episode_return": 5.5})  # a column that is empty, and the last
    assert progress(job).success_rate is None


def test_the_last_row_is_found_wherever_reading_begins_in_a_letter(tmp_path):
    table = tmp_path / "train.csv"
    for filler in range(4):
        rows = "".join(f"{'x' * filler}{'ö' * 40},{n}\n" for n in range(200))
        table.write_text(f"task,frame\n{rows}", encoding="utf-8")
        assert last_row(table)["frame"] == "199"
