#!/usr/bin/env bash
# On a machine that lends a GPU for minutes: does it work, and how far is it? 330 s in all, every step with its own limit.
#
#     bench/gpu.sh OUT              # smoke test, tests marked cuda, first ratios, kernels by time, memcheck
#     bench/gpu.sh OUT second       # after the mending: tests, builds against each other, all of bench.speed.run, racecheck, ncu
#     bench/gpu.sh --dry-run OUT    # the same steps on the CPU, in seconds; with `second` those of that call
#
# Writes into the folder OUT as it goes: log.txt (all output), steps.csv, <device>.csv, kernels.txt, summary.txt.
# A step that fails or takes too long does not stop the next; it is said at the end and in the exit status.
#
# Needs Python with a CUDA torch (2.11 or newer), pytest and numpy; no network. spherenet_fast/_C.abi3.so is used if it
# has been built beforehand and launches a kernel here; else it is built here, which needs nvcc.
#
# In the environment: PYTHON, the interpreter. COMMIT, what is written beside the numbers where git is not at hand.
# SECONDS_IN_ALL. TESTS, files or names of tests in place of all that are marked cuda. VARIANTS, the libraries that `second` compares.
# --dry-run goes through every step with the CPU in the place of the GPU: the smallest systems, a few tests, no nvcc, no
# sanitizer, no profiler of NVIDIA's, and recorded steps called as they are, each of which is said. It tries this script,
# and its numbers mean nothing.
set -uo pipefail

usage() { sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//'; }
dry_run=''
[[ ${1:-} == --dry-run ]] && { dry_run=1; shift; }
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "" | -*) usage >&2; exit 2 ;;
esac
call=${2:-first}
[[ $call == first || $call == second ]] || { usage >&2; exit 2; }

python=${PYTHON:-python3}
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
failed=()
echo "step,seconds,limit,status" >"$out/steps.csv"
: >"$out/log.txt"

device=cuda patience=1 small=() few_rows=() repeats=(--budget 0.5) tests=(-m cuda) all=()
numbers=tests/cuda/test_cuda_device.py
runtime=(tests/cuda/test_cuda_device_runtime.py tests/cuda/test_cuda_device_memory.py)
if [[ -n $dry_run ]]; then
  echo "dry run: the CPU in the place of the GPU, no sanitizer, no profiler of NVIDIA's; recorded steps are called as they are"
  device=cpu small=(--molecules 1 --replays 1) few_rows=(--rows 20 --replays 1) repeats=(--budget 0 --quick --dry-run) patience=20
  tests=(-m cuda -k "kernels_are_there or three_triplets or captured_inference and True")
  all=(--providers ours floor --cases qm9 models)
  export SPHERENET_FAST_TEST_DEVICE=cpu
fi
deadline=$((SECONDS + patience * ${SECONDS_IN_ALL:-330}))

say() { echo "$*" | tee -a "$out/log.txt"; }

# step NAME SECONDS COMMAND...: runs it within its time and what is left of all; interrupted first, so that it can say
# how far it came, and killed 5 s later
step() {
  local name=$1 limit=$((patience * $2)) start=$SECONDS status=124
  shift 2
  ((limit > deadline - SECONDS)) && limit=$((deadline - SECONDS))
  say "== $name (at most $limit s)"
  if ((limit > 0)); then
    timeout -s INT -k 5 "$limit" "$@" 2>&1 | tee -a "$out/log.txt"
    status=${PIPESTATUS[0]}
  else
    say "no time left"
  fi
  echo "$name,$((SECONDS - start)),$limit,$status" >>"$out/steps.csv"
  ((status == 0)) || failed+=("$name (status $status)")
  return "$status"
}

finish() {
  {
    echo
    sed -n '2,/^==/p' "$out/log.txt" | sed '/^==/d'
    sed -n '/^FAILED /p; /ours \/ floor/,/^==/p' "$out/log.txt" | sed '/^==/d'
    column -s, -t "$out/steps.csv" 2>/dev/null || cat "$out/steps.csv"
    if ((${#failed[@]})); then printf 'gpu.sh: FAILED: %s\n' "${failed[@]}"; else echo "gpu.sh: all steps passed"; fi
  } | tee "$out/summary.txt"
  exit $((${#failed[@]} > 0))
}

# 60 s, because the first import of torch reads gigabytes. Status 3, or a crash: all is well but for the library, which
# is not there or of no use here, being built for another torch or GPU, or without kernels.
environment() {
  step "$1" "$2" "$python" -m bench.gpu.environment --device "$device"
}
environment environment 60
status=$?
if ((status == 124)); then # by now the files are in memory
  environment environment-again 60
  status=$?
fi
if ((status == 3 || status > 128)) && [[ $device == cuda ]]; then
  failed=()
  rm -f spherenet_fast/_C.abi3.so
  # for this GPU alone: the other targets compile wherever there is nvcc
  capability='import torch; print("%d.%d" % torch.cuda.get_device_capability())'
  export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$("$python" -c "$capability")}
  export SPHERENET_FAST_CUDA=1 MAX_JOBS=${MAX_JOBS:-$(nproc)}
  step build 120 "$python" setup.py build_ext --inplace && environment library-built-here 30
  status=$?
fi
((status == 0)) || finish

# NAME, COMMAND...: our own kernels alone under a tool of compute-sanitizer
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
sanitize() {
  local tool=("${sanitizer:-compute-sanitizer}" --tool "$1" --error-exitcode 9 --kernel-regex kns=spherenet)
  [[ -n $dry_run ]] && tool=()
  step "$1" 330 "${tool[@]}" "$python" tests/cuda_small_case.py
}

# NAME, SECONDS, pytest's arguments or those in TESTS
pytest() {
  local arguments=("${@:3}")
  [[ -n ${TESTS:-} ]] && read -ra arguments <<<"$TESTS"
  step "$1" "$2" "$python" -m pytest -p no:cacheprovider -vv --tb=short --durations=10 "${arguments[@]}"
}

run=("$python" -m bench.speed.run --device "$device" --out "$out" "${repeats[@]}")
if [[ $call == first ]]; then
  step smoke 30 "$python" -m bench.gpu.smoke --device "$device"
  # apart, because after an error of the device nothing in the same process passes
  pytest tests 70 "$numbers" "${tests[@]}"
  [[ -n ${TESTS:-} ]] || pytest tests-runtime 40 "${runtime[@]}" "${tests[@]}"
  step ratios 80 "${run[@]}" --providers ours floor --cases qm9 aspirin-1 aspirin gated_sum
  step kernels 30 "$python" -m bench.gpu.kernel_times "$out" --device "$device" "${small[@]}"
  # every tensor an allocation of its own, so that a step past its end is seen
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 sanitize memcheck
else
  pytest tests 60 "$numbers" "${runtime[@]}" "${tests[@]}"
  read -ra variants <<<"${VARIANTS:-}"
  ((${#variants[@]})) \
    && step variants 60 "$python" -m bench.gpu.compare_builds --device "$device" "${small[@]}" "${variants[@]}"
  step row-chains 30 "$python" -m bench.gpu.row_chains --device "$device" "${few_rows[@]}"
  step benchmarks 100 "${run[@]}" "${all[@]}"
  ncu=$(command -v ncu || ls /usr/local/cuda/bin/ncu 2>/dev/null)
  profiled=("${ncu:-ncu}" --clock-control none -k regex:gated_sum -c 6)
  [[ -n $dry_run ]] && profiled=()
  step ncu 60 "${profiled[@]}" "$python" tests/cuda_small_case.py
  sanitize racecheck
fi
finish
