# What up and down share: where things lie, and which daemons live.
export PATH=$PATH:/usr/sbin:/sbin
STATE=$(realpath -m "${CASS_DEVCLUSTER:-/var/lib/cass-devcluster}")
CONF=$(realpath -m "${CASS_DEVCLUSTER_CONF:-/etc/slurm}")
export SLURM_CONF=$CONF/slurm.conf
MARK="# CASS-Pipeline, slurm/devcluster/up: this file belongs to the cluster in $STATE"
CONFS=(slurm.conf gres.conf slurmdbd.conf)
NODES=(gpu1 gpu2 gpu3)
DAEMONS=(munged mariadbd slurmdbd slurmctld "${NODES[@]/#/slurmd-}")

say() { printf '%s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }
refuse() { printf '%s\n' "$*" >&2; exit 2; }

ours() { [[ $(head -n 1 "$1" 2>/dev/null) == "$MARK" ]]; }

# A pid is handed out again once its process is gone, so the program must be the right one, too.
alive() {
    local pid program=${1%-gpu*}
    pid=$(cat "$STATE/$1.pid" 2>/dev/null) && [[ $(readlink "/proc/$pid/exe") == */sbin/$program?(-wlm) ]]
}

# within SECONDS COMMAND…: does it succeed in time? It is asked again and again.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@" &>/dev/null; do
        ((SECONDS < until)) || return 1
        sleep 0.1
    done
}

as_root() { ((EUID == 0)) || refuse "This needs root: the daemons start jobs, and $CONF and $STATE are root's."; }

# The lock is outside the state folder, which `down` deletes.
one_at_a_time() {
    exec 9>/run/lock/cass-devcluster.lock
    flock --nonblock 9 || { say "Another up or down is at work; waiting for it." >&2; flock 9; }
}
