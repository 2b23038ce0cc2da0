#!/usr/bin/env bash
# Starts a Slurm cluster of one node on this machine, for tests of the Slurm executor with a real Slurm.
#
#   tests/slurm/start.sh FOLDER              start it; then: export SLURM_CONF=FOLDER/slurm.conf SRPIPE_TEST_SLURM=FOLDER
#   tests/slurm/start.sh FOLDER pause        stop only the controller, as in an outage; `resume` restarts it
#   tests/slurm/start.sh FOLDER stop
#
# Needs root, and the Debian packages slurmctld, slurmd, slurm-client and munge. There is no accounting. Jobs that
# exceed their memory are killed, as on a cluster with cgroups.
set -euo pipefail
folder=$(mkdir -p "${1:?usage: start.sh FOLDER [pause|resume|stop]}" && cd "$1" && pwd)
export SLURM_CONF=$folder/slurm.conf

stop_daemon() {
    local pid
    pid=$(cat "$folder/$1.pid" 2> /dev/null) || return 0
    kill "$pid" 2> /dev/null || true
    while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
    rm -f "$folder/$1.pid"
}

wait_for_controller() {
    for _ in $(seq 100); do
        if sinfo --noheader --format=%T 2> /dev/null | grep -Eq 'idle|mixed|allocated'; then return 0; fi
        sleep 0.2
    done
    echo "Slurm did not start: see slurmctld.log and slurmd.log in $folder" >&2
    return 1
}

case ${2:-start} in
    stop) stop_daemon slurmd; stop_daemon slurmctld; exit ;;
    pause) stop_daemon slurmctld; exit ;;
    resume) slurmctld; wait_for_controller; exit ;;
esac

for name in munged slurmctld slurmd sinfo; do
    if ! PATH=$PATH:/usr/sbin command -v $name > /dev/null; then echo "$name is missing: install slurmctld, slurmd, slurm-client and munge" >&2; exit 1; fi
done
stop_daemon slurmd
stop_daemon slurmctld
node=$(hostname -s)
if ! getent hosts "$node" > /dev/null; then echo "127.0.0.1 $node" >> /etc/hosts; fi
if ! munge --no-input > /dev/null 2>&1; then
    install -d -o munge -g munge /run/munge
    su -s /bin/sh -c /usr/sbin/munged munge
fi
mkdir -p "$folder/state" "$folder/spool"
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)
cat > "$SLURM_CONF" <<CONF
ClusterName=tests
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=$((memory / $(nproc)))
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
slurmctld -c
slurmd -c
wait_for_controller
