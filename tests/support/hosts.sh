#!/usr/bin/env bash
# Several machines on one, for tests: hosts.sh FOLDER NAME... ; `tests/support/hosts.py` starts it and runs commands.
#
# Each has a network, mount, process and host-name namespace of its own: with its own address (10.77.0.1, .2, ...), /home,
# /tmp, /run and /dev/shm, and an SSH server. The user `lab` can log in to each of them from each of them; /srv is one
# folder for all. A bridge joins them, and leads nowhere else. Everything, the bridge too, is inside namespaces that end
# with this script, which ends when its standard input is closed: nothing is left behind, however it ends.
# Needs root, iproute2, openssh-server and util-linux.
set -euo pipefail

if [ "${1:-}" != --inside ]; then
  exec unshare --net --mount --pid --fork --kill-child --mount-proc -- bash "$0" --inside "$@"
fi
shift
folder=$1
shift

mount -t tmpfs tmpfs /run                       # for `ip netns`: the real one keeps none of these names
ip link set lo up
ip link add hosts type bridge
ip addr add 10.77.0.254/24 dev hosts
ip link set hosts up
echo 1 >/proc/sys/net/ipv4/ip_forward
ip route add unreachable default                # what is sent elsewhere is refused at once

mkdir -p "$folder/shared"
chown 1777:1777 "$folder/shared"
printf '%s\n' 'root:*:0:0::/home/lab:/bin/bash' 'lab:*:1777:1777::/home/lab:/bin/bash' 'sshd:*:74:74::/run/sshd:/bin/false' >"$folder/passwd"
printf '%s\n' 'root:x:0:' 'lab:x:1777:' 'sshd:x:74:' 'tty:x:5:' >"$folder/group"
printf '127.0.0.1 localhost\n' >"$folder/names"
ssh-keygen -q -t ed25519 -N '' -f "$folder/key"

number=0
for name in "$@"; do
  number=$((number + 1))
  printf '10.77.0.%s %s\n' "$number" "$name" >>"$folder/names"
done

number=0
for name in "$@"; do
  number=$((number + 1))
  own=$folder/$name
  mkdir -p "$own/tmp" "$own/home/lab/.ssh"
  cp -n /etc/skel/.[a-z]* "$own/home/lab/"
  cp "$folder/key" "$own/home/lab/.ssh/id_ed25519"
  cp "$folder/key.pub" "$own/home/lab/.ssh/authorized_keys"
  chown -R 1777:1777 "$own/home/lab"
  chmod 700 "$own/home/lab/.ssh"
  chmod 1777 "$own/tmp"
  ssh-keygen -q -t ed25519 -N '' -f "$own/hostkey"

  ip netns add "$name"
  ip link add "v-$name" type veth peer name eth0 netns "$name"
  ip link set "v-$name" master hosts up
  ip -n "$name" addr add "10.77.0.$number/24" dev eth0
  ip -n "$name" link set lo up
  ip -n "$name" link set eth0 up
  ip -n "$name" route add default via 10.77.0.254   # to nowhere; programs find their own address by it

  cat >"$own/start" <<HOST
set -e
mount --bind "$folder/passwd" /etc/passwd
mount --bind "$folder/group" /etc/group
mount --bind "$folder/names" /etc/hosts
mount --bind "$folder/shared" /srv
mount --bind "$own/home" /home
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
cp "$own/hostkey" /run/hostkey
mount --bind "$own/tmp" /tmp                      # last: the folder may lie there
hostname "$name"
cd /
exec /usr/sbin/sshd -D -e -f /dev/null -h /run/hostkey -o PidFile=none -o UsePAM=no
HOST
  ip netns exec "$name" unshare --mount --pid --uts --fork --mount-proc bash "$own/start" >"$own/sshd.log" 2>&1 &
  for _ in {1..100}; do                             # until it answers
    if (exec 3<>"/dev/tcp/10.77.0.$number/22") 2>/dev/null; then break; fi
    kill -0 $! || { cat "$own/sshd.log" >&2; exit 1; }
    sleep 0.1
  done
  cat "/proc/$!/task/$!/children" >"$own/pid"       # of the first process of the host
done
echo ready
cat >/dev/null
