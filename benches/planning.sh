#!/usr/bin/env bash
# Measures how long planning takes, with stages to run and with nothing to do.
#
#     benches/planning.sh [CIFAR-10 BINARY ARCHIVE]
#
# Nothing to do: six stages on the archive (without an archive, on generated images), and a sweep of 1,000 instances.
# Planning: sweeps of 10,000 instances, and of 10,000 training runs with their samples; without and with results in the
# store.
# Prints the fastest and the median of ten tries, and the memory if GNU time is installed.
set -euo pipefail
archive=${1:+$(realpath "$1")}
here=$(cd "$(dirname "$0")/.." && pwd)
srpipe=${SRPIPE:-$here/target/release/srpipe}
[ -x "$srpipe" ] || (cd "$here" && cargo build --release)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

seconds() { # NAME COMMAND...
    local name=$1 start end
    shift
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        start=${EPOCHREALTIME/[.,]/}
        "$@" > log 2>&1 || { cat log; exit 1; }
        end=${EPOCHREALTIME/[.,]/}
        echo $((end - start))
    done | sort -n > times
    awk -v n="$name" 'NR == 1 { least = $1 } NR == 5 { median = $1 }
        END { printf "%-58s %9.1f ms, median %9.1f ms", n, least / 1e3, median / 1e3 }' times
    if [ -x /usr/bin/time ]; then
        /usr/bin/time -f %M -o memory "$@" > log 2>&1
        awk '{ printf ", %6.1f MB", $1 * 1.024e-3 }' memory
    fi
    echo
}

list() { # FROM STEP TO
    seq -s, "$1" "$2" "$3"
}

data="dataset: synthetic, train: 2000, test: 64"
[ -z "$archive" ] || data="dataset: cifar10, url: 'file:$archive', limit: {train: 2000, test: 64}"
cat > six.yaml <<END
name: six
stages:
  images: {kind: fetch, $data}
  pairs: {kind: degrade, input: images}
  model: {kind: train, data: pairs, model: {base_channels: 8}, optim: {steps: 5}}
  samples: {kind: sample, model: model, data: pairs, samples: 2, sampler: {steps: 2}, limit: 8}
  compare: {kind: compare, arms: {only: samples}}
  count: {kind: command, command: [sh, -c, 'wc -c <{inputs.x} >{outputs.n}'], inputs: {x: compare/summary.json}, outputs: [n]}
END
cat > thousand.yaml <<END
name: thousand
stages:
  s:
    kind: command
    command: [sh, -c, 'echo {seed} \$A >{outputs.o}']
    outputs: [o]
    matrix: {seed: [$(list 1 1 250)], env.A: [a, b, c, d]}
END
plan() { # NAME AXES
    cat <<END
name: $1
stages:
  images: {kind: fetch, dataset: synthetic}
  pairs: {kind: degrade, input: images}
  model: {kind: train, data: pairs, optim: {steps: 10}, matrix: {$2}}
  samples: {kind: sample, model: model, data: pairs}
  compare: {kind: compare, arms: {only: samples}}
END
}
plan instances "seed: [$(list 1 1 500)], model.base_channels: [$(list 8 8 80)]" > instances.yaml
plan seeds "seed: [$(list 1 1 500)], model.base_channels: [$(list 8 8 160)]" > seeds.yaml
plan models "model.base_channels: [$(list 4 4 1000)], model.blocks_per_level: [$(list 1 1 10)],
    model.channel_mults: [[1,2,4],[1,2,2],[1,1,1],[1,2,3]]" > models.yaml

planning() { # DESCRIPTION
    seconds "plan 10,000 instances, $1" "$srpipe" plan instances.yaml
    seconds "plan 10,000 trainings, 20 models, $1" "$srpipe" plan seeds.yaml
    seconds "plan 10,000 trainings, all different, $1" "$srpipe" plan models.yaml
    seconds "the same as JSON, $1" "$srpipe" plan models.yaml --json
}

planning "no store"
"$srpipe" run six.yaml > log 2>&1 || { cat log; exit 1; }
seconds "nothing to do, 6 stages on ${archive:-generated images}" "$srpipe" run six.yaml
"$srpipe" run thousand.yaml > log 2>&1 || { cat log; exit 1; }
seconds "nothing to do, 1,000 instances" "$srpipe" run thousand.yaml
# Results of training runs, which the planner compares with each instance.
"$srpipe" run six.yaml --sweep "stages.model.seed=$(list 1 1 ${TRAININGS:-30})" --only model > log 2>&1 || { cat log; exit 1; }
planning "with results"
