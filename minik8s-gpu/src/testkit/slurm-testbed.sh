#!/usr/bin/env bash
# A real Slurm behind a real sshd, on loopback, below one directory; everything runs as whoever calls.
#   slurm-testbed.sh start DIR        starts it; prints lines of NAME=VALUE
#   slurm-testbed.sh stop DIR         ends its daemons and jobs by their ids, and removes DIR
#   slurm-testbed.sh fault DIR WHAT   breaks or mends something:
#       drain | node-down NODE | nodes-up | expire JOB | ctld-freeze | ctld-thaw | ctld-stop | ctld-start | ssh-stop | ssh-start |
#       ssh-drop | host-key | key | jump-start (a second sshd, to come through)
# Two nodes of 8 processors, 8 GB and 2 graphics processors each (pretended: character devices that every machine has).
# Partitions: all (both nodes), one, two. Needs munge, slurmctld, slurmd, slurm-client and openssh-server of Debian.
set -euo pipefail
export LC_ALL=C
umask 022

fail() { echo "slurm-testbed: $*" >&2; exit 1; }
[ $# -ge 2 ] || fail "say start, stop or fault, and a directory"
action=$1 dir=$2; shift 2
case $dir in /*) ;; *) fail "the directory must be absolute" ;; esac
[ ${#dir} -le 60 ] || fail "the directory's name is too long for sockets in it"
export SLURM_CONF=$dir/slurm.conf PATH=$PATH:/usr/sbin:/sbin

# ------------------------------------------------------------------------------------------------ processes

# True while a process lives that carries the bed's directory, so that a number that is used again means nobody else.
lives() {
  local state
  state=$(sed -n 's/^State:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null) || return 1
  case $state in ''|Z*|X*) return 1 ;; esac
  { tr '\0' '\n' <"/proc/$1/cmdline"; tr '\0' '\n' <"/proc/$1/environ"; } 2>/dev/null | grep -F -- "$dir/" >/dev/null
}
pid_of() { local pid; pid=$(cat "$dir/run/$1.pid" 2>/dev/null) && [ -n "$pid" ] && lives "$pid" && echo "$pid"; }
end() { # NAME SIGNAL
  local pid; pid=$(pid_of "$1") || return 0
  kill "-$2" "$pid" 2>/dev/null || true
  kill -CONT "$pid" 2>/dev/null || true
  for _ in $(seq 100); do lives "$pid" || return 0; sleep 0.05; done
  kill -KILL "$pid" 2>/dev/null || true
}
below() { local child; for child in $(pgrep -P "$1" || true); do below "$child"; echo "$child"; done; }
sessions() { local name listener; for name in sshd jump; do listener=$(pid_of "$name") || continue; below "$listener"; done; }
# Jobs and what watches over them know the configuration by their environment, or descend from one that does.
job_processes() {
  local entry pid
  for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    { tr '\0' '\n' <"$entry/environ"; } 2>/dev/null | grep -xF "SLURM_CONF=$dir/slurm.conf" >/dev/null || continue
    { tr '\0' '\n' <"$entry/environ"; tr '\0' '\n' <"$entry/cmdline"; } 2>/dev/null | grep -E '^(SLURM_JOB_ID=|slurmstepd|.*slurmscriptd)' >/dev/null || continue
    below "$pid"; echo "$pid"
  done
  for entry in /sys/fs/cgroup/*/slurm_"${node1:-none}" /sys/fs/cgroup/*/slurm_"${node2:-none}"; do
    [ ! -d "$entry" ] || find "$entry" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done
}
until_ok() { local n; for n in $(seq "$1"); do "${@:2}" >/dev/null 2>&1 && return 0; sleep 0.1; done; return 1; }
quietly() { "$@" </dev/null >>"$dir/log/start.log" 2>&1; }

# ------------------------------------------------------------------------------------------------ configuration

used=" "
free_port() {
  local port
  for _ in $(seq 500); do
    port=$((20000 + RANDOM % 12000))
    case $used in *" $port "*) continue ;; esac
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then used="$used$port "; port_found=$port; return; fi
  done
  fail "no free port"
}

with_cgroups() {
  [ "$(id -u)" = 0 ] || return 1
  local controller
  for controller in memory freezer cpuacct; do [ -w "/sys/fs/cgroup/$controller/cgroup.procs" ] || return 1; done
}

configure() {
  local host me; host=$(hostname -s); me=$(id -un)
  cat >"$dir/slurm.conf" <<EOF
ClusterName=testbed
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmUser=$me
SlurmdUser=$me
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
MailProg=/bin/true
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
MaxArraySize=1001
MinJobAge=${TESTBED_MIN_JOB_AGE:-3600}
KillWait=2
SlurmctldTimeout=10
SlurmdTimeout=30
BatchStartTimeout=30
ReturnToService=2
NodeName=$node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$port1 CPUs=8 RealMemory=8000 Gres=gpu:v100:2
NodeName=$node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$port2 CPUs=8 RealMemory=8000 Gres=gpu:a100:2
PartitionName=all Nodes=$node1,$node2 Default=YES DefaultTime=10 MaxTime=60
PartitionName=one Nodes=$node1 DefaultTime=10 MaxTime=60
PartitionName=two Nodes=$node2 DefaultTime=10 MaxTime=60
EOF
  if [ "$cgroups" = yes ]; then
    printf '%s\n' ProctrackType=proctrack/cgroup TaskPlugin=task/cgroup JobAcctGatherType=jobacct_gather/cgroup >>"$dir/slurm.conf"
    printf '%s\n' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup ConstrainRAMSpace=yes >"$dir/cgroup.conf"
  else
    printf '%s\n' ProctrackType=proctrack/linuxproc JobAcctGatherType=jobacct_gather/linux >>"$dir/slurm.conf"
    # The plug-in for version 1 touches nothing until it is asked; newer Slurm can be told that there is none.
    if [ "$(slurmd -V | sed 's/^[^ ]* *\([0-9]*\)\..*/\1/')" -ge 24 ]; then echo CgroupPlugin=disabled
    else printf '%s\n' CgroupPlugin=cgroup/v1 "CgroupMountpoint=$dir/none"; fi >"$dir/cgroup.conf"
  fi
  {
    echo AutoDetect=off
    for device in null zero; do
      echo "NodeName=$node1 Name=gpu Type=v100 File=/dev/$device"
      echo "NodeName=$node2 Name=gpu Type=a100 File=/dev/$device"
    done
  } >"$dir/gres.conf"
  (umask 077; head -c 1024 /dev/urandom >"$dir/munge/key")
  ssh-keygen -q -t ed25519 -N '' -f "$dir/ssh/host_key"
  ssh-keygen -q -t ed25519 -N '' -f "$dir/ssh/key"
  ssh-keygen -q -t ed25519 -N '' -f "$dir/ssh/jump_key"
  cp "$dir/ssh/key.pub" "$dir/ssh/authorized_keys"
  echo "[127.0.0.1]:$ssh_port $(cut -d' ' -f1,2 "$dir/ssh/host_key.pub")" >"$dir/ssh/known_hosts"
  echo "[127.0.0.1]:$jump_port $(cut -d' ' -f1,2 "$dir/ssh/jump_key.pub")" >>"$dir/ssh/known_hosts"
  cat >"$dir/ssh/sshd_config" <<EOF
Port $ssh_port
ListenAddress 127.0.0.1
HostKey $dir/ssh/host_key
PidFile $dir/run/sshd.pid
AuthorizedKeysFile $dir/ssh/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv SLURM_CONF=$dir/slurm.conf
LogLevel VERBOSE
MaxSessions 10
MaxStartups 100:30:200
UseDNS no
EOF
  sed -e "s|^Port .*|Port $jump_port|" -e "s|^HostKey .*|HostKey $dir/ssh/jump_key|" -e "s|sshd.pid|jump.pid|" \
    "$dir/ssh/sshd_config" >"$dir/ssh/jump_config"
}

# ------------------------------------------------------------------------------------------------ daemons

start_ctld() {
  pid_of slurmctld >/dev/null && return
  quietly slurmctld -f "$SLURM_CONF" || fail "slurmctld: $(tail -n 3 "$dir/log/slurmctld.log")"
  until_ok 300 scontrol ping || fail "slurmctld does not answer"
}
start_slurmd() {
  pid_of "slurmd-$1" >/dev/null && return
  quietly slurmd -N "$1" -f "$SLURM_CONF" || fail "slurmd $1: $(tail -n 3 "$dir/log/slurmd-$1.log" "$dir/log/start.log")"
}
start_sshd() {
  pid_of sshd >/dev/null && return
  [ "$(id -u)" != 0 ] || mkdir -p /run/sshd
  quietly /usr/sbin/sshd -f "$dir/ssh/sshd_config" -E "$dir/log/sshd.log" || fail "sshd: $(tail -n 3 "$dir/log/start.log")"
  until_ok 100 pid_of sshd || fail "sshd does not start"
}
start_jump() {
  pid_of jump >/dev/null && return
  quietly /usr/sbin/sshd -f "$dir/ssh/jump_config" -E "$dir/log/jump.log" || fail "the sshd on the way: $(tail -n 3 "$dir/log/start.log")"
  until_ok 100 pid_of jump || fail "the sshd on the way does not start"
}
usable() { [ "$(sinfo -h -N -p all -o %T | grep -cE '^(idle|mixed|allocated|completing)$')" = 2 ]; }
settings() { printf '%s\n' "ssh_port=$ssh_port" "jump_port=$jump_port" "node1=$node1" "node2=$node2" "cgroups=$cgroups" "user=$(id -un)"; }

start() {
  mkdir -p "$dir"
  [ -z "$(ls -A "$dir")" ] || fail "$dir is not empty"
  chmod 711 "$dir"
  mkdir -p "$dir"/{munge,state,spool,log,run,ssh,home}
  chmod 700 "$dir/state"
  for name in ctld_port port1 port2 ssh_port jump_port; do free_port; printf -v "$name" %s "$port_found"; done
  # Control groups go by the names of nodes: beds of one machine must not share them.
  node1=g1x$ssh_port node2=g2x$ssh_port cgroups=no
  ! with_cgroups || cgroups=yes
  settings >"$dir/vars"
  mkdir -p "$dir/spool/$node1" "$dir/spool/$node2"
  configure
  quietly munged --socket="$dir/munge/socket" --key-file="$dir/munge/key" --pid-file="$dir/run/munged.pid" \
    --seed-file="$dir/munge/seed" --log-file="$dir/log/munged.log" --num-threads=4 || fail "munged: $(tail -n 3 "$dir/log/start.log")"
  start_ctld
  start_slurmd "$node1"; start_slurmd "$node2"
  start_sshd
  until_ok 600 usable || fail "the nodes do not come up: $(sinfo -N -o '%N %T %E')"
  settings
}

stop() {
  [ -d "$dir" ] || return 0
  [ ! -f "$dir/vars" ] || . "$dir/vars"
  for pid in $(sessions); do kill "$pid" 2>/dev/null || true; done
  end sshd TERM; end jump TERM
  for name in slurmctld "slurmd-${node1:-}" "slurmd-${node2:-}" munged; do end "$name" KILL; done
  for _ in 1 2 3 4 5; do
    pids=$(job_processes | sort -un); [ -n "$pids" ] || break
    for pid in $pids; do kill -KILL "$pid" 2>/dev/null || true; done
    sleep 0.1
  done
  for node in "${node1:-none}" "${node2:-none}"; do
    find /sys/fs/cgroup/*/"slurm_$node" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  rm -rf "$dir"
}

fault() {
  . "$dir/vars"
  case $1 in
    drain) for node in "$node1" "$node2"; do scontrol update "NodeName=$node" State=DRAIN Reason=test; done ;;
    node-down) scontrol update "NodeName=$2" State=DOWN Reason=test ;;
    nodes-up) for node in "$node1" "$node2"; do scontrol update "NodeName=$node" State=RESUME 2>/dev/null || true; done
              until_ok 300 usable || fail "the nodes do not come back" ;;
    expire) scontrol update "JobId=$2" EndTime=now+1 ;;
    ctld-freeze) pid=$(pid_of slurmctld); kill -STOP "$pid"
                 # Each of its threads stops when it next looks at the signal.
                 until_ok 300 eval "! sed 's/.*) //' /proc/$pid/task/*/stat | grep -qv '^T'" ;;
    ctld-thaw) kill -CONT "$(pid_of slurmctld)" ;;
    ctld-stop) end slurmctld TERM ;;
    ctld-start) start_ctld; until_ok 300 usable || fail "the nodes do not come back" ;;
    ssh-drop) for pid in $(sessions); do kill "$pid" 2>/dev/null || true; done ;;
    ssh-stop) listener=$(pid_of sshd || true); pids=$(sessions); end sshd TERM
              for pid in $pids; do kill "$pid" 2>/dev/null || true; done
              [ -z "$listener" ] || until_ok 100 eval "! kill -0 $listener" ;;
    ssh-start) start_sshd ;;
    host-key) rm "$dir/ssh/host_key" "$dir/ssh/host_key.pub"; ssh-keygen -q -t ed25519 -N '' -f "$dir/ssh/host_key"
              fault ssh-stop; start_sshd ;;
    jump-start) start_jump ;;
    key) : >"$dir/ssh/authorized_keys" ;;
    *) fail "unknown fault: $1" ;;
  esac
}

case $action in
  start) trap '[ $? = 0 ] || stop' EXIT; start ;;
  stop) stop ;;
  fault) fault "$@" ;;
  *) fail "unknown action: $action" ;;
esac
