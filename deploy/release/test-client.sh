#!/bin/sh
# Build the wheels of client, evaluate and lychee-rerank, install them for a Python, and run their unit tests, which need
# no server and no torch. Usage: deploy/release/test-client.sh PYTHON [lowest]
# PYTHON is a version or an interpreter that uv knows; with `lowest`, the oldest dependencies that pyproject.toml allows.
# UV_FIND_LINKS, UV_INDEX_URL and the like reach uv. Environment and wheels go into a temporary folder.
set -eu
python=$1
resolution=highest
old=
if [ "${2:-}" = lowest ]; then
    resolution=lowest-direct
    # Old libraries do what newer ones deprecate, and the command's progress bar ends with one more line.
    old="-W ignore::DeprecationWarning --deselect tests/unit/client/test_cli.py::test_calls_are_ranked_line_by_line
        --deselect tests/unit/client/test_import.py::test_client_and_command_never_load_model_libraries"
fi
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for distribution in . client evaluate; do
    uv build --quiet --wheel --out-dir "$work/wheels" $distribution
done
uv venv --quiet --python "$python" "$work/venv"
# Read from the files, so that uv takes what they ask for as direct dependencies. Old sdists may want compilers: wheels only.
uv pip install --quiet --python "$work/venv/bin/python" --find-links "$work/wheels" --only-binary :all: \
    --resolution $resolution --requirement client/pyproject.toml --requirement evaluate/pyproject.toml --extra cli \
    --extra heic
uv pip install --quiet --python "$work/venv/bin/python" --find-links "$work/wheels" --only-binary :all: \
    "lychee-rerank[evaluate]" hypothesis pytest scikit-learn trustme
"$work/venv/bin/lychee" --version
uv pip list --python "$work/venv/bin/python"

# The other tests of these folders want torch, the server or the fixtures of tests/conftest.py, which loads both.
for tests in client evaluate; do
    # shellcheck disable=SC2086
    "$work/venv/bin/python" -m pytest --quiet -p no:cacheprovider --confcutdir tests/unit/$tests tests/unit/$tests \
        --ignore tests/unit/client/test_cross_encoder_drop_in.py --ignore tests/unit/client/test_triton_key.py \
        --deselect tests/unit/client/test_gateway.py::test_inputs_travel_in_the_gateways_shapes \
        --deselect tests/unit/evaluate/test_cli_calibrate.py::test_example_pairs_are_all_usable \
        --override-ini addopts="--import-mode=importlib --strict-markers" $old
done
