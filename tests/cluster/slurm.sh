#!/usr/bin/env bash
# A one-node Slurm on loopback for tests: no systemd, no cgroups, daemons known by their process id.
#   slurm.sh up [none|dbd]   install if need be, configure, start; with accounting: dbd
#   slurm.sh down            end the daemons and take the configuration away
# The configuration must lie where srun looks without any SLURM_ variable, because the executor takes
# those from its jobs. It is taken away again: where Slurm is installed but down, every call of
# Snakemake would wait for an answer of the controller.
set -euo pipefail
state=${SLURM_TEST_DIR:-${TMPDIR:-/tmp}/corelab-slurm}
conf=/etc/slurm/slurm.conf
dbd=/etc/slurm/slurmdbd.conf
mark="# made by tests/cluster/slurm.sh"
host=$(hostname -s)

ours() { [ ! -s "$1" ] || grep -qF "$mark" "$1"; }
running() { [ -s "$state/$1.pid" ] && kill -0 "$(cat "$state/$1.pid" 2>/dev/null)" 2>/dev/null; }

end_one() {
    if running "$1"; then
        kill "$(cat "$state/$1.pid")"
        for _ in $(seq 100); do running "$1" || break; sleep 0.1; done
    fi
    rm -f "$state/$1.pid"
}

install_packages() {
    local wanted=(slurm-wlm munge)
    [ "$1" = dbd ] && wanted+=(slurmdbd mariadb-server)
    local missing=()
    for name in "${wanted[@]}"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q "ok installed" || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "${missing[@]}" >"$state/apt.log" 2>&1
}

write_configuration() {
    local accounting="AccountingStorageType=accounting_storage/none"
    [ "$1" = dbd ] && accounting="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=26819
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2"
    mkdir -p /etc/slurm "$state/save" "$state/spool" "$state/log"
    getent hosts "$host" >/dev/null || echo "127.0.0.1 $host" >>/etc/hosts
    cat >$conf <<EOF
$mark
ClusterName=corelab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort=26817
SlurmdPort=26818
StateSaveLocation=$state/save
SlurmdSpoolDir=$state/spool
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait=5
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MaxArraySize=1001
$accounting
NodeName=$host NodeAddr=127.0.0.1 CPUs=${SLURM_TEST_CPUS:-8} RealMemory=$(awk '/MemTotal/ {print int($2/1024*0.9)}' /proc/meminfo) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE DefMemPerCPU=512 State=UP
EOF
}

start_munge() {
    running munged && return
    [ -s "$state/munge.key" ] || { head -c 1024 /dev/urandom >"$state/munge.key"; chmod 400 "$state/munge.key"; }
    mkdir -p /run/munge && chmod 755 /run/munge
    munged --force --key-file="$state/munge.key" --socket=/run/munge/munge.socket.2 \
        --pid-file="$state/munged.pid" --log-file="$state/log/munged.log" --seed-file="$state/munge.seed"
}

start_accounting() {
    if ! running mariadb; then
        [ -d "$state/db/mysql" ] || mariadb-install-db --user=root --datadir="$state/db" >"$state/log/install-db.log" 2>&1
        mariadbd --user=root --datadir="$state/db" --socket="$state/db.sock" --skip-networking \
            --pid-file="$state/mariadb.pid" >"$state/log/mariadb.log" 2>&1 &
        for _ in $(seq 150); do mariadb-admin --socket="$state/db.sock" ping >/dev/null 2>&1 && break; sleep 0.2; done
        mariadb --socket="$state/db.sock" -e "create database if not exists accounting"
    fi
    cat >$dbd <<EOF
$mark
AuthType=auth/munge
DbdHost=localhost
DbdPort=26819
SlurmUser=root
PidFile=$state/slurmdbd.pid
LogFile=$state/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
EOF
    chmod 600 $dbd
    running slurmdbd && return
    MYSQL_UNIX_PORT="$state/db.sock" slurmdbd
    for _ in $(seq 100); do sacctmgr -n list cluster >/dev/null 2>&1 && break; sleep 0.2; done
    sacctmgr -i add cluster corelab >/dev/null 2>&1 || true
    sacctmgr -i add account corelab >/dev/null 2>&1 || true
    sacctmgr -i add user root account=corelab >/dev/null 2>&1 || true
}

up() {
    ours $conf || { echo "$conf belongs to a real Slurm: nothing done" >&2; exit 2; }
    unset SLURM_CONF
    mkdir -p "$state" && chmod 755 "$state"
    install_packages "$1"
    write_configuration "$1"
    start_munge
    [ "$1" = dbd ] && start_accounting
    running slurmctld || slurmctld
    running slurmd || slurmd
    for _ in $(seq 150); do
        sinfo -h -o %T 2>/dev/null | grep -qE '^(idle|mixed|allocated)' && { sinfo; return; }
        sleep 0.2
    done
    tail -n 20 "$state"/log/*.log >&2
    echo "Slurm did not come up; its logs are in $state/log" >&2
    exit 1
}

down() {
    ours $conf || exit 2
    for name in slurmd slurmctld slurmdbd mariadb munged; do end_one $name; done
    ours $dbd && rm -f $dbd
    rm -f $conf
}

case "${1:-}" in
up) up "${2:-none}" ;;
down) down ;;
*) sed -n 2,7p "$0"; exit 2 ;;
esac
