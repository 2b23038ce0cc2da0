#!/usr/bin/env bash
# Tests srpipe on a GPU: compares its results with the CPU, runs pipelines, and compares its speed with PyTorch.
#
#     benches/gpu.sh BINARY [FOLDER]
#
# BINARY must be built with `--features cuda`. Results go to FOLDER (default: a new one in /tmp). Needs the NVIDIA
# driver and the toolkit's cuBLAS (set LD_LIBRARY_PATH or CUDA_PATH if the system does not find it). Environment
# variables:
#
# - PYTHON: an interpreter (python3) with torch for CUDA; without torch the comparison is skipped.
# - REFERENCE: the test binary that compares networks with PyTorch's numbers; this prints its path at the end:
#       cargo test --release --features cuda --test reference --no-run
# - ARCHIVE: a CIFAR-10 archive, complete or reduced.
# - DEVICE: another GPU than `cuda`.
# - SECONDS_EACH: the duration of a measurement. The default takes about half an hour in all; 1 is faster.
#
# The last lines are a table. A failure does not stop the script, but it exits with 1.
set -uo pipefail
binary=$(realpath "${1:?usage: benches/gpu.sh BINARY [FOLDER]}")
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${2:-$(mktemp -d)}
mkdir -p "$folder" && folder=$(realpath "$folder")
reference=${REFERENCE:+$(realpath "$REFERENCE")}
archive=${ARCHIVE:+$(realpath "$ARCHIVE")}
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
seconds=${SECONDS_EACH:-5}
failed=0
rows=()
cd "$folder"

title() { printf '\n== %s\n' "$*"; }
row() { rows+=("$(printf '%-34s %s' "$1" "$2")"); }

# step NAME COMMAND...: runs a command, copies its output to NAME.log, and adds its result and duration to the table.
step() {
    local name=$1 start=$SECONDS
    shift
    title "$name: $*"
    if "$@" 2>&1 | tee "$name.log"; then row "$name" "ok, $((SECONDS - start)) s"; else
        failed=1
        row "$name" "FAILED, see $folder/$name.log"
    fi
}

title "machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee gpu.txt
"$binary" --version
row "GPU" "$(head -1 gpu.txt)"

# Every kind of network and prediction type: outputs within 1e-4, gradients within 1e-3, and the losses of 200 steps.
step "check" "$binary" bench --device "$device" --check --steps 200
# Compared with PyTorch's numbers: outputs within 1e-4, gradients within 1e-3.
if [ -n "$reference" ]; then
    step "fixtures" env CARGO_MANIFEST_DIR="$here" SRPIPE_TEST_DEVICE="$device" "$reference" --test-threads=1
else
    row "fixtures" "skipped: REFERENCE is not set"
fi
step "quickstart" "$binary" run "$here/pipelines/quickstart.yaml" --device "$device"
if [ -n "$archive" ]; then
    step "ablation" "$binary" run "$here/pipelines/ablation.yaml" --device "$device" \
        --set "stages.cifar.url=file:$archive" --set stages.cifar.validation=${VALIDATION:-100} ${ABLATION:-}
else
    row "ablation" "skipped: ARCHIVE is not set"
fi

# Speed, interleaved with PyTorch: each is warmed up and has the GPU to itself.
has_torch=$("$python" -c 'import torch; print(torch.cuda.is_available())' 2> /dev/null || echo False)
[ "$has_torch" = True ] || title "$python has no PyTorch for CUDA: only srpipe is measured"
speed() { # BASE BATCH
    local base=$1 batch=$2 ours theirs
    title "base $base, batch $batch"
    ours=$("$binary" bench --json --device "$device" --base-channels "$base" --batch "$batch" --seconds "$seconds") || {
        failed=1
        row "base $base, batch $batch" "FAILED"
        return
    }
    theirs='{}'
    if [ "$has_torch" = True ]; then
        theirs=$("$python" "$here/benches/against_pytorch.py" --peer --device "$device" --base-channels "$base" \
            --batch "$batch" --seconds "$seconds") || theirs='{}'
    fi
    row "base $base, batch $batch" "$("$python" - "$ours" "$theirs" << 'PYTHON'
import json, sys
ours, theirs = map(json.loads, sys.argv[1:])
cells = []
for name, key in (("train", "train_images_per_s"), ("forward", "forward_images_per_s")):
    cell = f"{name} {ours[key]:8.0f} images/s"
    if key in theirs:
        cell += f" (PyTorch {theirs[key]:8.0f}, ratio {ours[key] / theirs[key]:.2f})"
    cells.append(cell)
cells.append(f"{ours['gflops'] / 1e3:.2f} TFLOP/s in training")
print("; ".join(cells))
PYTHON
)"
}
for base in 32 64; do
    for batch in 32 128 512; do speed "$base" "$batch"; done
done

# Find the bottleneck of a step (launches, bandwidth or arithmetic), if Nsight Systems is installed.
if command -v nsys > /dev/null; then
    step "profile" nsys profile --force-overwrite true --stats true -o profile \
        "$binary" bench --device "$device" --batch 128 --seconds 2
fi

title "results, in $folder"
printf '%s\n' "${rows[@]}" | tee table.txt
exit $failed
