#!/usr/bin/env bash
# A SLURM cluster on this machine for tests: a controller, one node and a separate munge. It uses no other SLURM.
#   scripts/test-slurm.sh start DIR    start the cluster; then set SLURM_CONF=DIR/slurm.conf
#   scripts/test-slurm.sh stop DIR     stop the cluster and its jobs
# It needs slurmctld, slurmd, slurm-client and munge (scripts/setup-system.sh slurm). The daemons run as the current
# user, on two free ports of the loopback interface. DIR must be empty and have a short path, because it contains a
# socket.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
action=${1:?start or stop} dir=${2:?a folder}

stop() {
    local daemon pid
    for daemon in slurmd slurmctld munged; do
        [ -s "$dir/$daemon.pid" ] || continue
        pid=$(<"$dir/$daemon.pid")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 100); do # wait until it has written its files; a zombie process has no executable
            [ -e "/proc/$pid/exe" ] || break
            sleep 0.1
        done
    done
}

free_ports() {
    "${PYTHON:-python3}" - <<'PYTHON'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(opened.getsockname()[1] for opened in sockets))
PYTHON
}

start() {
    mkdir -p "$dir"/{state,spool}
    chmod 0755 "$dir" # munged refuses a folder that other users can write to
    local user host ports
    user=$(id -un) host=$(hostname -s)
    read -ra ports < <(free_ports)
    (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
    munged --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" --num-threads=1
    # cred_expire: a requeued job waits this long. Partitions: a job in `urgent` preempts a job in `main`.
    cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=10
MpiDefault=none
GresTypes=gpu
NodeName=$host Gres=gpu:2 NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
CONF
    printf 'Name=gpu File=%s\n' /dev/null /dev/zero >"$dir/gres.conf" # files that represent GPUs; jobs only count them
    export SLURM_CONF=$dir/slurm.conf
    slurmctld -c
    slurmd
    for _ in $(seq 300); do
        [ "$(sinfo -h -o %t -p main 2>/dev/null)" = idle ] && return
        sleep 0.1
    done
    echo "The node did not start. The last lines of the logs of its daemons:" >&2
    tail -n 5 "$dir"/*.log >&2
    stop
    return 1
}

"$action"
