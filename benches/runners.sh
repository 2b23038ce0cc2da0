#!/usr/bin/env bash
# Measures the overhead of a run: trivial, independent stages in srpipe, Snakemake and DVC.
#
#     benches/runners.sh [N] [VENV]
#
# Each of N stages (default: 200) writes one small file. Measures the first run, and a run with nothing to do. Snakemake
# and DVC come from the Python environment VENV (python3 -m venv VENV; VENV/bin/pip install snakemake dvc), and are
# skipped if they are missing.
set -euo pipefail
n=${1:-200}
environment=${2:-}
here=$(cd "$(dirname "$0")/.." && pwd)
srpipe=${SRPIPE:-$here/target/release/srpipe}
[ -x "$srpipe" ] || (cd "$here" && cargo build --release)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PATH=${environment:+$environment/bin:}$PATH
cores=$(nproc)

seconds() { # NAME COMMAND...
    local name=$1 start end
    shift
    start=$(date +%s.%N)
    "$@" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    end=$(date +%s.%N)
    awk -v n="$name" -v a="$start" -v b="$end" 'BEGIN { printf "%-36s %8.3f s\n", n, b - a }'
}

echo "$n trivial stages on $cores cores"

mkdir "$work/srpipe" && cd "$work/srpipe"
{
    printf 'name: many\nstages:\n'
    for i in $(seq "$n"); do
        printf "  s%s: {kind: command, command: [sh, -c, 'echo %s >{outputs.o}'], outputs: [o]}\n" "$i" "$i"
    done
} > p.yaml
seconds "srpipe run" "$srpipe" run p.yaml
seconds "srpipe run, nothing to do" "$srpipe" run p.yaml

if command -v snakemake > /dev/null; then
    mkdir "$work/snakemake" && cd "$work/snakemake"
    {
        printf 'rule all:\n    input: expand("out/{i}", i=range(1, %s))\n' "$((n + 1))"
        printf 'rule one:\n    output: "out/{i}"\n    shell: "echo {wildcards.i} >{output}"\n'
    } > Snakefile
    seconds "snakemake" snakemake -c "$cores" -q
    seconds "snakemake, nothing to do" snakemake -c "$cores" -q
fi

if command -v dvc > /dev/null; then
    mkdir "$work/dvc" && cd "$work/dvc"
    git init -q . && dvc init -q
    {
        printf 'stages:\n'
        for i in $(seq "$n"); do
            printf '  s%s:\n    cmd: echo %s >%s.txt\n    outs: [%s.txt]\n' "$i" "$i" "$i" "$i"
        done
    } > dvc.yaml
    seconds "dvc repro" dvc repro
    seconds "dvc repro, nothing to do" dvc repro
fi
