"""What a sweep is made of."""

import pytest

from pixelcontrol.experiments.plan import Variant, parse_seeds, plan, state

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
        *("toy_reach", "--agent=drqv2", "--preset=ablation-a", "--seed=0"),
        f"--out={tmp_path / 'drqv2-ablation-a_toy_reach_0'}",
    ]


def test_overrides_are_spelt_as_the_command_line_reads_them(tmp_path):
    (job,) = plan(["toy_reach"], [DRQV2], [0], tmp_path, {"keep_replay": False, "batch_size": 32})
    assert job.words()[4:] == ["--batch-size=32", "--keep-replay=no"]


def test_a_users_own_agent_has_a_preset_behind_its_name(tmp_path):
    (job,) = plan(["toy_reach"], [Variant("restless:KIND", "quick")], [0], tmp_path, {})
    assert str(job.variant) == "restless:KIND:quick"
    assert job.directory.name == "restless-KIND-quick_toy_reach_0"


@pytest.mark.parametrize(
    ("variant", "overrides", "said"),
    [
        (Variant("drq2"), {}, "agent 'drq2'"),
        (Variant("drqv2", "papr"), {}, "preset of drqv2 'papr'"),
        (DRQV2, {"batch": 3}, "setting of drqv2 'batch'"),
        (DRQV2, {"n_step": 0}, "--n-step is 0"),
        (Variant("drqv2", settings={"n_step": 0}), {"n_step": 1}, "--n-step is 0"),
        (Variant("drqv2", settings={"device": "cpu"}), {}, "give it apart, not in 'drqv2 --device=cpu'"),
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
    assert usual.words()[4:] == ["--frames=1600", "--n-step=5"]
    assert changed.words()[4:] == ["--conv-strides=2,2", "--frames=1600", "--n-step=1"]
    assert usual.directory.name == "drqv2-quick_toy_reach_0"
    assert changed.directory.name == "drqv2-quick-conv_strides=2,2-n_step=1_toy_reach_0"
    assert str(changed.variant) == str(own) == "drqv2:quick --conv-strides=2,2 --n-step=1"


@pytest.mark.parametrize(
    "settings",
    [
        ({}, {}),  # one agent twice
        ({}, {"n_step": 3}),  # which is the preset's
        ({"envs": 1}, {"envs": 16}),  # where it runs, not what learns
        ({"start_from": "runs/a"}, {"start_from": "runs/b"}),
    ],
)
def test_variants_that_figures_would_take_for_one_are_refused(tmp_path, settings):
    variants = [Variant("drqv2", settings=some) for some in settings]
    with pytest.raises(ValueError, match=r"--agents 'drqv2.*' and 'drqv2.*' would be one in figures, 'drqv2"):
        plan(["toy_reach"], variants, [0, 1], tmp_path, {})


def test_variants_of_one_name_are_refused(tmp_path):
    runs = [Variant("drqv2", settings={"camera": (word,)}) for word in ("my/cam", "my-cam")]
    with pytest.raises(ValueError, match=r"camera=my/cam' and 'drqv2 .*my-cam' would train in one directory"):
        plan(["cheetah_run"], runs, [0], tmp_path, {})


def test_a_directory_that_no_disk_could_name_is_refused(tmp_path):
    variant = Variant("drqv2", settings={"demonstrations": 60 * "long/"})
    with pytest.raises(ValueError, match="longer than 255 bytes; make what all agents have in common"):
        plan(["toy_reach"], [variant], [0], tmp_path, {})


def test_a_note_of_another_version_is_refused(tmp_path):
    (job,) = plan(["toy_reach"], [DRQV2], [0], tmp_path, {})
    job.directory.mkdir()
    (job.directory / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match="none that this version wrote"):
        state(job)
