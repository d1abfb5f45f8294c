#!/usr/bin/env bash
# Proves the two commands in a minimal Debian: clean-room.sh bookworm|trixie demo|test [FOLDER]
#
# Makes a fresh root with debootstrap from this machine's own package source, clones the committed tree into it and runs
# scripts/demo.sh or scripts/test.sh there as root. Needs root, debootstrap and about 3 GB in FOLDER (default: a temporary one).
set -euo pipefail
release=${1:?bookworm or trixie} what=${2:?demo or test}
top=$(cd "$(dirname "$0")/.." && pwd)
room=${3:-$(mktemp -d)}/$release
. "$top/scripts/setup.sh"
setup_packages debootstrap
# The package source of this machine, whatever it is.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
mkdir -p "$(dirname "$room")"
say "a minimal $release in $room"
[ -e "$room/etc/debian_version" ] || debootstrap --variant=minbase "$release" "$room" "${mirror%/}" >"$room.log" 2>&1 || {
    tail "$room.log" >&2
    exit 7
}
for file in /etc/apt/apt.conf.d /etc/resolv.conf /etc/hosts /etc/ssl/certs /etc/pip.conf; do
    [ ! -e "$file" ] || { mkdir -p "$room$(dirname "$file")"; cp -rL "$file" "$room$(dirname "$file")/" 2>/dev/null || true; }
done
mount -t proc proc "$room/proc" 2>/dev/null || true
trap 'umount "$room/proc" 2>/dev/null || true' EXIT
rm -rf "$room/regraft"
git clone -q "$top" "$room/regraft"
certificates=() # older pip looks at its own alone
[ ! -e "$room/etc/ssl/certs/ca-certificates.crt" ] || certificates=(PIP_CERT=/etc/ssl/certs/ca-certificates.crt)
say "scripts/$what.sh in the clean room"
chroot "$room" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    "${certificates[@]}" \
    ${http_proxy:+http_proxy=$http_proxy} ${https_proxy:+https_proxy=$https_proxy} bash "/regraft/scripts/$what.sh"
