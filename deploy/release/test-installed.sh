#!/bin/sh
# Build all wheels from their sdists, install "lychee-rerank[all]" from them into an environment outside the tree, and go
# a new user's way in an empty folder: quickstart, rerank, stop. Usage: deploy/release/test-installed.sh PYTHON
# On Python 3.11 the versions are those of constraints.txt, elsewhere the newest. Gigabytes; minutes.
set -eu
python=$1
cd "$(dirname "$0")/../.."
tree=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

"$python" -m venv "$work/venv"
pip="$work/venv/bin/pip --quiet --disable-pip-version-check"
constraint=
[ "$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')" != 3.11 ] ||
    constraint="--constraint $tree/constraints.txt"
$pip install build
for distribution in . client evaluate export server loadtest bulk; do
    "$work/venv/bin/python" -m build --outdir "$work/dist" $distribution >/dev/null
done
# torch first and alone, as in the Makefile.
# shellcheck disable=SC2086
$pip install $constraint torch
# shellcheck disable=SC2086
$pip install $constraint --find-links "$work/dist" "lychee-rerank[all]"

mkdir "$work/empty" "$work/home"
cd "$work/empty"
export HOME="$work/home" LYCHEE_STATE_DIR="$work/state" LYCHEE_CACHE_DIR="$work/cache"
lychee="$work/venv/bin/lychee"
$lychee --version
$lychee --help >/dev/null
trap '$lychee stop || true; rm -rf "$work"' EXIT
$lychee quickstart --no-browser --port 0
$lychee status
echo "a kitten sleeps" >cat.txt
echo "a cup of coffee" >coffee.txt
url=$($lychee status --json | "$work/venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["gateway"]["url"])')
$lychee rerank --url "$url" --query "a cat" cat.txt coffee.txt
