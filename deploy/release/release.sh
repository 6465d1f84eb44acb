#!/bin/sh
# Build a release: check that the tree is one, build all seven distributions (the wheels from the sdists), check them, and
# write into dist/ a bill of materials and checksums. It uploads nothing. Usage: deploy/release/release.sh [VERSION]
# With a VERSION, such as 0.2.0, the commit must be clean, tagged vVERSION and in the changelog. Without, it is a dry run
# of whatever the tree holds, and says what a release would lack. PYTHON (default python3) makes the environments.
set -eu
python=${PYTHON:-python3}
cd "$(dirname "$0")/../.."
wanted=${1:-}

problems=0
complain() {
    echo "$1" >&2
    problems=$((problems + 1))
}
release=$("$python" -c 'import sys; sys.path.insert(0, "deploy/release"); import version; print(version.RELEASE)')
expected=${wanted:-$release}
[ -z "$(git status --porcelain)" ] || complain "The tree has changes that are not committed; commit or stash them."
[ "$(git describe --tags --exact-match --match "v$expected" 2>/dev/null)" = "v$expected" ] ||
    complain "This commit has no tag v$expected; git tag --sign v$expected"
[ "$release" = "$expected" ] || complain "deploy/release/version.py says $release, expected $expected; change RELEASE."
grep -qx "appVersion: \"$expected\"" deploy/helm/lychee-rerank/Chart.yaml ||
    complain "deploy/helm/lychee-rerank/Chart.yaml has another appVersion; change it to \"$expected\", and version too."
grep -q "^## \[$expected\] - " CHANGELOG.md || complain "CHANGELOG.md has no heading \"## [$expected] - DATE\"; write it."
if [ $problems -gt 0 ]; then
    [ -z "$wanted" ] || exit 1
    echo "Dry run: goes on although a release would stop here." >&2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check --requirement deploy/release/requirements.txt
rm -rf dist
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) # the same commit gives the same bytes
export SOURCE_DATE_EPOCH
for distribution in . client evaluate export server loadtest bulk; do
    "$work/tools/bin/python" -m build --outdir dist $distribution
done
"$work/tools/bin/twine" check --strict dist/*
# lychee-rerank has no files of its own, which is what W007 and W008 are about.
"$work/tools/bin/check-wheel-contents" --ignore W007,W008 dist/*.whl

# What the pinned environment is made of: names, versions and licences of constraints.txt, as CycloneDX.
"$work/tools/bin/cyclonedx-py" requirements constraints.txt --output-format JSON --output-file dist/sbom.cdx.json
(cd dist && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
ls -l dist
if [ -z "$wanted" ]; then
    echo "Dry run: nothing was tagged or uploaded."
else
    echo "dist/ holds $wanted. Push the tag v$wanted: the workflow release.yml builds it again, signs it and publishes it."
fi
