# Runs one job. Arguments: FOLDER SCRIPT TASK ID DEPENDENCY OUT ERR
put() { echo "$2" > "$1.new" && mv "$1.new" "$1"; }
job=$1
for dependency in $(echo "$5" | tr , ' '); do
    for other in "$STUB"/jobs/"${dependency#*:}".*; do
        while grep -q 'PENDING\|RUNNING' "$other/state"; do sleep 0.02; done
        if ! grep -q COMPLETED "$other/state"; then
            put "$job/reason" DependencyNeverSatisfied
            put "$job/state" CANCELLED
            exit
        fi
    done
done
put "$job/reason" None
put "$job/state" RUNNING
if [ "$(cat "$job/task")" != N/A ]; then export SLURM_ARRAY_TASK_ID=$3; fi
SLURM_JOB_ID=$4 sh "$2" >> "$6" 2>> "$7" < /dev/null &
put "$job/pid" $!
wait $!
ended=$?
if grep -q RUNNING "$job/state"; then
    if [ $ended = 0 ]; then put "$job/state" COMPLETED; else put "$job/state" FAILED; fi
fi
