#!/usr/bin/env bash
# Everything that is worth knowing of srpipe on a GPU: whether it computes what the CPU does, whether pipelines run, and
# how fast it is beside PyTorch.
#
#     benches/gpu.sh BINARY [FOLDER]
#
# BINARY is built with `--features cuda`. FOLDER is for results (a new one in /tmp by default). Needs the NVIDIA driver,
# the toolkit's libraries (cuBLAS; LD_LIBRARY_PATH or CUDA_PATH where the system does not know them), and for the
# comparison PYTHON (python3) with torch for CUDA, without which it is left out. REFERENCE names the tests that hold
# networks against PyTorch's numbers, which are built where the binary is and found at the end of what that says:
#     cargo test --release --features cuda --test reference --no-run
# ARCHIVE may name a CIFAR-10 archive, all
# of it or a small one, and DEVICE another GPU than cuda. Takes about half an hour; SECONDS_EACH=1 makes it shorter.
# The last lines are the table. Exits with 1 where something failed; what follows a failure still runs.
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

# step NAME COMMAND...: its output goes to NAME.log as well, its end and its seconds into the table.
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

# Outputs within 1e-4, gradients within 1e-3, and the losses of 200 steps, of every kind of network and every objective.
step "check" "$binary" bench --device "$device" --check --steps 200
# PyTorch's numbers: outputs within 1e-4, gradients within 1e-3 of them.
if [ -n "$reference" ]; then
    step "fixtures" env CARGO_MANIFEST_DIR="$here" SRPIPE_TEST_DEVICE="$device" "$reference" --test-threads=1
else
    row "fixtures" "left out: REFERENCE does not name the tests"
fi
step "quickstart" "$binary" run "$here/pipelines/quickstart.yaml" --device "$device"
if [ -n "$archive" ]; then
    step "ablation" "$binary" run "$here/pipelines/ablation.yaml" --device "$device" \
        --set "stages.cifar.url=file:$archive" --set stages.cifar.validation=${VALIDATION:-100} ${ABLATION:-}
else
    row "ablation" "left out: ARCHIVE does not name the images"
fi

# Speed, in turn with PyTorch: both are warm, and both have the GPU to themselves.
has_torch=$("$python" -c 'import torch; print(torch.cuda.is_available())' 2> /dev/null || echo False)
[ "$has_torch" = True ] || title "PyTorch for CUDA is not in $python: only srpipe is measured"
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

# What bounds a step: launches, bytes or arithmetic. Nsight Systems, where it is installed.
if command -v nsys > /dev/null; then
    step "profile" nsys profile --force-overwrite true --stats true -o profile \
        "$binary" bench --device "$device" --batch 128 --seconds 2
fi

title "results, in $folder"
printf '%s\n' "${rows[@]}" | tee table.txt
exit $failed
