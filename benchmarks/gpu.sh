#!/usr/bin/env bash
# Everything that only a GPU can show, in four parts, each of which can be run alone and again:
#
#   benchmarks/gpu.sh check              images, updates and runs are those of a CPU; captured updates the eager ones
#   benchmarks/gpu.sh forms              what might make the update faster, each form beside the one in use
#   benchmarks/gpu.sh speed [FLAGS]      every row of the table of speeds; FLAGS go to each `pixelcontrol bench`
#   benchmarks/gpu.sh learn OUT [FLAGS]  two seeds of five tasks; stopped by anything, the same words go on
#
# Without a GPU the first part skips its tests, and the others run on the CPU. GPU time is dear: each step has at most
# LIMIT seconds (300), and one that fails or takes longer is named and followed by the next; then the exit status is 1.
set -uo pipefail
cd "$(dirname "$0")/.."
part=${1:?check, forms, speed or learn}
shift
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
status=0
try() {
  timeout "${LIMIT:-300}" "$@" || { echo "ended with status $?: $*"; status=1; }
}
bench() { try python3 -m pixelcontrol bench "$@"; }

case $part in
check)
  # the captured update first: all else rests on it, and one that fails spoils those behind it
  try python3 -m pytest -m gpu -x tests/test_learner.py
  # which compiles the kernels, in a minute and a half on one core
  LIMIT=${LIMIT:-600} try python3 -m pytest -m gpu tests/test_storage.py tests/test_gpu.py
  try python3 -m pytest -m gpu tests/test_train.py
  ;;
forms)
  # a process each: a capture that fails can spoil those after it
  for form in encoder observations second_layer first_layer casts twins trunk; do
    try python3 benchmarks/forms.py $form "$@"
  done
  ;;
speed)
  bench update "$@"
  bench train --frames 20_000 --replay-capacity 1e5 "$@"
  for task in cheetah_run humanoid_walk; do bench env $task --envs 16 "$@"; done
  bench replay --replay-capacity 2e5 "$@" # which fills it three times
  for task in walker_walk humanoid_walk; do bench update $task "$@"; done # batch 512; feature dim 100
  for precision in fp32 tf32; do bench update --precision $precision "$@"; done
  for agent in sac curl drq dreamerv2; do bench update --agent $agent "$@"; done
  bench env --envs 8 --renderer opengl "$@"
  bench seeds --frames 20_000 --replay-capacity 1e5 "$@"
  ;;
learn)
  python3 -m pixelcontrol sweep --tasks cartpole_swingup walker_walk finger_spin cup_catch cheetah_run --seeds 1-2 \
    --out "$1" --frames 1_000_000 --eval-every-frames 20_000 "${@:2}"
  status=$?
  ;;
*)
  echo "$part is none of check, forms, speed, learn" >&2
  status=2
  ;;
esac
exit $status
