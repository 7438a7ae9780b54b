#!/usr/bin/env bash
# Everything that only a GPU can show, in four parts, each of which can be run alone and again:
#
#   benchmarks/gpu.sh check              images, updates and runs are those of a CPU; captured updates the eager ones
#   benchmarks/gpu.sh forms              what might make the update faster, each form beside the one in use
#   benchmarks/gpu.sh speed [FLAGS]      every row of the table of speeds; FLAGS go to each `pixelcontrol bench`
#   benchmarks/gpu.sh learn OUT [FLAGS]  two seeds of five tasks; stopped by anything, the same words go on
#
# Without a GPU the first part skips its tests, and the others run on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:?check, forms, speed or learn}
shift
pixelcontrol() { python3 -m pixelcontrol "$@"; }

case $part in
check)
  python3 -m pytest tests/test_gpu.py tests/test_learner.py tests/test_storage.py
  python3 -m pytest tests/test_train.py -k bit_for_bit
  ;;
forms)
  # a process each: a capture that fails can spoil those after it
  for form in first_layer second_layer observations casts twins trunk encoder; do
    python3 benchmarks/forms.py $form "$@"
  done
  ;;
speed)
  for agent in drqv2 sac curl drq dreamerv2; do pixelcontrol bench update --agent $agent "$@"; done
  for precision in fp32 tf32; do
    pixelcontrol bench update --precision $precision "$@" || echo "$precision: not on this device"
  done
  for task in walker_walk humanoid_walk; do pixelcontrol bench update $task "$@"; done # batch 512; feature dim 100
  pixelcontrol bench replay --replay-capacity 1e6 "$@"
  for task in cheetah_run humanoid_walk; do pixelcontrol bench env $task --envs 16 "$@"; done
  pixelcontrol bench env --envs 8 --renderer opengl "$@" || echo "opengl: not on this machine"
  pixelcontrol bench train --frames 40_000 "$@"
  pixelcontrol bench seeds --frames 100_000 "$@"
  ;;
learn)
  pixelcontrol sweep --tasks cartpole_swingup walker_walk finger_spin cup_catch cheetah_run --seeds 1-2 \
    --out "$1" --frames 1_000_000 --eval-every-frames 20_000 "${@:2}"
  ;;
*)
  echo "$part is none of check, forms, speed, learn" >&2
  exit 2
  ;;
esac
