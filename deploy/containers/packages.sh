#!/bin/sh
# Install what `make containers` needs of Debian: the Docker engine, iptables, and debootstrap for the stand-ins of base
# images. Debian's own service of the engine is not started. Does nothing where all is there.
set -eu
missing=
command -v dockerd >/dev/null && command -v docker >/dev/null || missing="docker.io"
command -v iptables >/dev/null || missing="$missing iptables"
command -v debootstrap >/dev/null || missing="$missing debootstrap"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Containers need$missing, and root. On Debian: apt-get install$missing" >&2
    exit 1
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy # no service is started
    chmod 755 $policy
fi
echo "Installing $missing"
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
