"""Stands in for `pixelcontrol train` in the tests of sweeps: the same files and manners in a fraction of a second.

A run of 10 evaluations whose returns depend on its task, agent and seed alone. It saves after each, so that a
resumed run ends like an undisturbed one. What lies beside the run directories disturbs it, once: a file
`kill_SEED_AT` makes the run with that seed kill itself before evaluation AT, `refuse` makes it exit with status
2, `hold` makes every run wait before its evaluation 5 until the file is gone.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from pixelcontrol.rundir import RunLock

# As runs.EVAL_COLUMNS, without importing NumPy for it in every process.
HEADER = (
    "agent,task,seed,frame,agent_step,update,hour,episode_return,episode_return_std,episodes,"
    "preset,renderer,precision,envs,commit\n"
)

parser = argparse.ArgumentParser()
parser.add_argument("task", nargs="?")
parser.add_argument("--agent")
parser.add_argument("--preset")
parser.add_argument("--seed", type=int)
parser.add_argument("--frames", type=int)
parser.add_argument("--out", type=Path)
parser.add_argument("--resume", type=Path)
given = parser.parse_args()
directory = given.resume or given.out
checkpoint, config_file, table = (
    directory / name for name in ("checkpoint/00000001.json", "config.json", "eval.csv")
)

if (directory.parent / "refuse").exists():
    print("no such thing")
    sys.exit(2)
if not given.resume:
    if config_file.exists():
        sys.exit(f"{directory} already holds a run")
    names = ("task", "agent", "seed", "frames")
    config_file.write_text(json.dumps({name: getattr(given, name) for name in names}))
config = json.loads(config_file.read_text())
with RunLock(directory):
    lines = [HEADER]
    if given.resume:
        lines = json.loads(checkpoint.read_text())
    table.write_text("".join(lines))
    for index in range(len(lines) - 1, 11):
        disturbance = directory.parent / f"kill_{config['seed']}_{index}"
        if disturbance.exists():
            disturbance.unlink()
            with table.open("a") as file:
                file.write(lines[-1][:20])
            os.kill(os.getpid(), signal.SIGKILL)
        while index == 5 and (directory.parent / "hold").exists():
            time.sleep(0.01)
        value = sum(map(ord, config["task"] + config["agent"])) + 10 * config["seed"] + index
        frame = index * config["frames"] // 10
        row = [config["agent"], config["task"], config["seed"], frame, frame // 2, frame // 4, frame / 1e6]
        lines.append(",".join(map(str, [*row, value, 0, 10, "paper", "warp", "fp32", 1, "abc"])) + "\n")
        with table.open("a") as file:
            file.write(lines[-1])
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.with_suffix(".tmp").write_text(json.dumps(lines))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
print("done")
