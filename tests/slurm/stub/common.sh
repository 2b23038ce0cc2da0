# Sourced by the commands in this folder, a stub of Slurm that runs jobs immediately on this machine. $STUB is its folder.
#
# A job is a folder `jobs/ID.TASK` with the files name, comment, task, state, reason and, while it runs, pid. To make the Nth
# call of a command fail, a test writes shell code to `$STUB/COMMAND.N`; for every call, to `$STUB/COMMAND.all`.

# put FILE TEXT: writes a file atomically.
put() { echo "$2" > "$1.new" && mv "$1.new" "$1"; }

command=$(basename "$0")
calls=$(($(cat "$STUB/$command.calls" 2> /dev/null || echo 0) + 1))
put "$STUB/$command.calls" "$calls"

for injected in "$STUB/$command.$calls" "$STUB/$command.all"; do
    if [ -f "$injected" ]; then . "$injected"; fi
done
