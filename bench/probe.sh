# Runs inside a container that was started as the measured ones are, and says whether it got what Docker gives: a start that
# leaves out the sandbox is no faster start. One line per check: `ok NAME` or `FAILED NAME: what was found`.
# usage: probe.sh MEMORY_LIMIT_BYTES bridge|none
check() { # check NAME FOUND EXPECTED
  if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: $2, not $3"; fi
}
status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
limit() { cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null | head -n 1; }

check 'seccomp filter' "$(status Seccomp)" 2
check '14 effective capabilities' "$(status CapEff)" 00000000a80425fb
check '14 capabilities in the bounding set' "$(status CapBnd)" 00000000a80425fb
check 'memory limit' "$(limit)" "$1"
# Every hierarchy whose controllers limit something; the container sees its own cgroup as the root.
check 'own cgroup' "$(grep -E '^[0-9]+:[^:]*(memory|pids|devices|freezer)[^:]*:|^0::' /proc/self/cgroup | cut -d: -f3 | sort -u | tr '\n' ' ')" '/ '
check 'masked file /proc/kcore' "$(head -c 1 /proc/kcore | wc -c)" 0
check 'masked directory /sys/firmware' "$(ls /sys/firmware | wc -l)" 0
check 'read-only /proc/sys' "$(awk '$2 == "/proc/sys" { print substr($4, 1, 2) }' /proc/mounts)" ro
check 'read-only /sys' "$(awk '$2 == "/sys" { print substr($4, 1, 2) }' /proc/mounts)" ro
check 'process 1 is ours' "$(tr '\0' ' ' </proc/1/cmdline | cut -d' ' -f1)" sh
if [ "$2" = bridge ]; then
  gateway=$(ip route | sed -n 's/^default via \([^ ]*\) dev eth0.*/\1/p')
  check 'default route' "${gateway:+present}" present
  check 'the gateway answers' "$(ping -c 1 -W 5 "$gateway" >/dev/null 2>&1 && echo yes)" yes
else
  check 'no interface but lo' "$(ls /sys/class/net | tr '\n' ' ')" 'lo '
fi
