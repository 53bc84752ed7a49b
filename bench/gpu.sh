#!/usr/bin/env bash
# On a machine with a GPU: builds the kernels, tests them, runs compute-sanitizer, and measures; under 8 minutes.
#
#     bench/gpu.sh OUT        # writes into the folder OUT: <device>.csv, summary.txt, steps.csv, a log of each step
#
# Needs Python with a CUDA torch (2.11 or newer), pytest and numpy, and nvcc; no network.
# PYTHON chooses the interpreter.
# A step that fails is said at the end and in the exit status; what the others measured is written all the same.
set -uo pipefail

usage() { sed -n '2,8p' "$0" | sed 's/^# \{0,1\}//'; }
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "" | -*) usage >&2; exit 2 ;;
esac

python=${PYTHON:-python3}
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
deadline=$((SECONDS + ${SECONDS_IN_ALL:-460}))
failed=()
echo "step,seconds,status" >"$out/steps.csv"

# step NAME SECONDS COMMAND...: runs it within its time and what is left of all, keeps its log and status
step() {
  local name=$1 limit=$2 start=$SECONDS status
  shift 2
  ((limit > deadline - SECONDS)) && limit=$((deadline - SECONDS))
  echo "== $name"
  if ((limit > 0)); then
    timeout -k 10 "$limit" "$@" 2>&1 | tee "$out/$name.log"
    status=${PIPESTATUS[0]}
  else
    echo "no time left" | tee "$out/$name.log"
    status=124
  fi
  echo "$name,$((SECONDS - start)),$status" >>"$out/steps.csv"
  ((status == 0)) || failed+=("$name (status $status)")
  return "$status"
}

finish() {
  {
    echo
    cat "$out/environment.log" 2>/dev/null
    [[ -f $out/benchmark-ours.log ]] && sed -n '/ours \/ floor/,$p' "$out/benchmark-ours.log"
    echo
    column -s, -t "$out/steps.csv" 2>/dev/null || cat "$out/steps.csv"
  } | tee "$out/summary.txt"
  if ((${#failed[@]})); then
    printf 'gpu.sh: FAILED: %s\n' "${failed[@]}" | tee -a "$out/summary.txt" >&2
    exit 1
  fi
  echo "gpu.sh: all steps passed" | tee -a "$out/summary.txt"
  exit 0
}

step environment 60 "$python" - <<'EOF' || finish
import platform
import subprocess
import sys

import torch

sys.path.insert(0, "bench")
import table

if not torch.cuda.is_available():
    sys.exit(f"gpu.sh: expected a CUDA device, but torch {torch.__version__} sees none")
driver = subprocess.run(
    ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
).stdout.split()
devices = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
print(f"GPU {', '.join(devices)}; driver {driver[0] if driver else 'unknown'}; CUDA {torch.version.cuda}")
print(f"torch {torch.__version__}; Python {platform.python_version()}; commit {table.commit()}")
EOF

# for this GPU alone: the other targets compile wherever there is nvcc
capability='import torch; print("%d.%d" % torch.cuda.get_device_capability())'
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$("$python" -c "$capability")}
export SPHERENET_FAST_CUDA=1 MAX_JOBS=${MAX_JOBS:-$(nproc)}
step build 180 "$python" setup.py build_ext --inplace || finish

step tests 170 "$python" -m pytest tests/test_cuda_device*.py -m cuda -q -p no:cacheprovider

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
for tool in memcheck racecheck; do
  # our own kernels alone, and every tensor an allocation of its own, so that a step past its end is seen
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 step "$tool" 60 "${sanitizer:-compute-sanitizer}" --tool "$tool" --error-exitcode 9 \
    --kernel-regex kns=spherenet "$python" tests/cuda_small_case.py
done

measure=("$python" bench/run.py --device cuda --out "$out" --budget 0.5)
step benchmark-ours 150 "${measure[@]}" --providers ours floor
step benchmark-pyg 70 "${measure[@]}" --providers pyg_schnet pyg_dimenet++ \
  --cases build qm9 qm9-128 qm9-512 ethanol aspirin models
step benchmark-models 40 "${measure[@]}" --cases models --providers no_torsion no_angle dimenet++ dimenet schnet physnet
step benchmark-reference 60 "${measure[@]}" --providers reference \
  --cases qm9 qm9-128 ethanol aspirin-1 aspirin liquid radial_basis torsion_reference gated_sum
finish
