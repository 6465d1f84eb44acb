#!/bin/sh
# Install what Debian's Python 3.11 lacks for this project: venv, and the shared library that Triton's stub loads.
# Does nothing where both are there. Usage: deploy/debian-packages.sh PYTHON
set -eu
python=$1
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || {
    echo "There is no $python. Install Python 3.11 (on Debian 12: apt-get install python3.11) or set PYTHON=..." >&2
    exit 1
}
missing=$("$python" - <<'CHECK'
import ctypes
import importlib.util
import os
import sys

version = "%d.%d" % sys.version_info[:2]
library = f"libpython{version}.so.1.0"
packages = []
if not importlib.util.find_spec("ensurepip"):
    packages.append(f"python{version}-venv")
if not os.path.exists(os.path.join(sys.base_prefix, "lib", library)):
    try:
        ctypes.CDLL(library)
    except OSError:
        packages.append(f"libpython{version}")
print(*packages)
CHECK
)
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing $missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "Python $version lacks $missing. On Debian and Ubuntu: sudo apt-get install $missing" >&2
    exit 1
fi
