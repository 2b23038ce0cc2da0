# Read by the commands beside it: a Slurm of shell scripts that runs jobs at once on this machine. $STUB is its folder.
#
# A job is a folder `jobs/ID.TASK` with the files name, comment, task, state, reason and, while it runs, pid. What a test wants
# to go wrong with the Nth call of a command, or with every, it puts into `$STUB/COMMAND.N` or `$STUB/COMMAND.all`, as shell.
# A file that is there whole or not at all.
put() { echo "$2" > "$1.new" && mv "$1.new" "$1"; }

command=$(basename "$0")
calls=$(($(cat "$STUB/$command.calls" 2> /dev/null || echo 0) + 1))
put "$STUB/$command.calls" "$calls"

for injected in "$STUB/$command.$calls" "$STUB/$command.all"; do
    if [ -f "$injected" ]; then . "$injected"; fi
done
