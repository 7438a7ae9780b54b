"""What a sweep is made of, and how far its runs are."""

import math

import pytest
import torch

from pixelcontrol.experiments.plan import Variant, describe, last_row, parse_seeds, plan, progress
from pixelcontrol.logger import CsvLog

DRQV2 = Variant("drqv2")


@pytest.mark.parametrize(("text", "seeds"), [("3", [3]), ("0-2", [0, 1, 2]), ("0-1,7,1", [0, 1, 7])])
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1;2", "²"])
def test_seeds_that_are_none(text):
    with pytest.raises(ValueError, match="--seeds"):
        parse_seeds(text)


def test_a_plan_completes_comparisons_early(tmp_path):
    jobs = plan(["toy_reach", "cheetah_run"], [DRQV2, Variant("drqv2", "ablation-a")], [0, 1], tmp_path, {})
    assert [str(job) for job in jobs[:5]] == [
        "drqv2_toy_reach_0",
        "drqv2-ablation-a_toy_reach_0",
        "drqv2_cheetah_run_0",
        "drqv2-ablation-a_cheetah_run_0",
        "drqv2_toy_reach_1",
    ]
    assert jobs[1].command() == [
        *("toy_reach", "--agent", "drqv2", "--preset", "ablation-a", "--seed", "0"),
        *("--out", str(tmp_path / "drqv2-ablation-a_toy_reach_0")),
    ]


def test_overrides_are_spelt_as_the_command_line_reads_them(tmp_path):
    (job,) = plan(["toy_reach"], [DRQV2], [0], tmp_path, {"keep_replay": False, "batch_size": 32})
    assert job.settings == ("--batch-size", "32", "--keep-replay", "no")


def test_one_run_spelt_twice_is_one_run(tmp_path):
    assert len(plan(["toy_reach"], [DRQV2, Variant("drqv2", "paper")], [0], tmp_path, {})) == 1


def test_a_users_own_agent_has_a_preset_behind_its_name(tmp_path):
    (job,) = plan(["toy_reach"], [Variant("restless:KIND", "quick")], [0], tmp_path, {})
    assert (job.agent, job.preset) == ("restless:KIND", "quick")
    assert job.directory.name == "restless-KIND-quick_toy_reach_0"


@pytest.mark.parametrize(
    ("variant", "overrides", "said"),
    [
        (Variant("drq2"), {}, "agent 'drq2'"),
        (Variant("drqv2", "papr"), {}, "preset of drqv2 'papr'"),
        (DRQV2, {"batch": 3}, "setting of drqv2 'batch'"),
        (DRQV2, {"n_step": 0}, "--n-step is 0"),
        (Variant("drqv2", settings={"n_step": 0}), {"n_step": 1}, "--n-step is 0"),
        (Variant("drqv2", settings={"device": "cpu"}), {}, "give it apart, not in 'drqv2 --device cpu'"),
    ],
)
def test_a_mistake_is_found_before_anything_starts(tmp_path, variant, overrides, said):
    with pytest.raises(ValueError, match=said):
        plan(["toy_reach"], [DRQV2, variant], [0], tmp_path, overrides)
    assert list(tmp_path.iterdir()) == []


def test_memory_of_a_run_is_its_replay_and_overhead(tmp_path):
    (job,) = plan(["cheetah_run"], [DRQV2], [0], tmp_path, {})
    # 1M transitions of 84 x 84 x 3 bytes.
    assert job.memory_bytes == 21_168_000_000 + 3 * 1024**3


def test_memory_of_a_run_counts_cameras_and_depth(tmp_path):
    (job,) = plan(["cheetah_run"], [DRQV2], [0], tmp_path, {"camera": ("0", "back"), "depth": 8.0})
    assert job.memory_bytes == 8 * 84 * 84 * 1_000_000 + 3 * 1024**3


def test_settings_of_a_variant_are_its_own_and_take_precedence(tmp_path):
    """What is compared lies side by side, under names that tell it apart."""
    own = Variant("drqv2", "quick", {"n_step": 1, "conv_strides": (2, 2)})
    overrides = {"n_step": 5, "frames": 1600}
    usual, changed = plan(["toy_reach"], [Variant("drqv2", "quick"), own], [0], tmp_path, overrides)
    assert usual.settings == ("--frames", "1600", "--n-step", "5")
    assert changed.settings == ("--conv-strides", "2,2", "--frames", "1600", "--n-step", "1")
    assert usual.directory.name == "drqv2-quick_toy_reach_0"
    assert changed.directory.name == "drqv2-quick-conv_strides=2,2-n_step=1_toy_reach_0"
    assert changed.variant == str(own) == "drqv2:quick --conv-strides 2,2 --n-step 1"


def test_variants_of_one_name_are_refused(tmp_path):
    runs = [Variant("drqv2", settings={"start_from": word}) for word in ("runs/a", "runs-a")]
    with pytest.raises(
        ValueError, match=r"start-from runs/a' and 'drqv2 .*runs-a' would train in one directory"
    ):
        plan(["toy_reach"], runs, [0], tmp_path, {})


def test_a_plan_for_the_cpu_counts_hours_of_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "a tenth of the paper's" in describe(plan(["cheetah_run"], [DRQV2], [0], tmp_path, {}), 1, "cpu")


def test_progress_reads_whole_lines_only(tmp_path):
    (job,) = plan(["toy_reach"], [DRQV2], [0], tmp_path, {})
    job.directory.mkdir()
    assert progress(job)["frame"] == 0
    (job.directory / "train.csv").write_text("frame,update,frames_per_second\n10,0,900\n")
    (job.directory / "eval.csv").write_text("frame,episode_return\n16,5.5\n")
    seeding = progress(job)
    assert (seeding["frame"], seeding["frames_per_second"]) == (16, 0.0)  # nothing is learned yet
    with (job.directory / "train.csv").open("a") as file:
        file.write("20,5,60.0\n30,7")
    now = progress(job)
    assert math.isnan(now.pop("success_rate"))
    assert now == {"frame": 20, "episode_return": 5.5, "frames_per_second": 60.0}
    table = job.directory / "eval.csv"
    table.unlink()
    log = CsvLog(table, ("frame", "episode_return", "success_rate"))
    log.append({"frame": 16, "episode_return": 5.5, "success_rate": 0.25})
    assert progress(job)["success_rate"] == 0.25
    log.append({"frame": 20, "episode_return": 5.5})  # a column that is empty, and the last
    assert math.isnan(progress(job)["success_rate"])


def test_the_last_row_is_found_wherever_reading_begins_in_a_letter(tmp_path):
    table = tmp_path / "train.csv"
    for filler in range(4):
        rows = "".join(f"{'x' * filler}{'ö' * 40},{n}\n" for n in range(200))
        table.write_text(f"task,frame\n{rows}", encoding="utf-8")
        assert last_row(table)["frame"] == "199"
