#!/bin/bash
# Build the TensorRT engines of this model repository: a model.plan beside the newest model.onnx of every encoder.
#
# Written by `lychee export --target tensorrt`. Run it on the machine and GPU that will serve the engines, in NVIDIA's
# container of the TensorRT version that the server has (TRITON_TAG is the tag of both images, 26.03-py3 for example):
#
#   docker run --rm --gpus all -v "$PWD":/models nvcr.io/nvidia/tensorrt:$TRITON_TAG /models/build-tensorrt.sh
#
# or `docker compose --profile tensorrt run --rm tensorrt-build`. An engine that is up to date is left alone: the key
# beside it is a hash of the ONNX file, the arguments, TensorRT's version and the GPU. An engine appears under its name
# only when it is complete.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
trtexec=$(PATH=$PATH:/opt/tensorrt/bin:/usr/src/tensorrt/bin type -P trtexec) || {
    echo "build-tensorrt: there is no trtexec here; run this in the container nvcr.io/nvidia/tensorrt" >&2
    exit 1
}
help=$("$trtexec" --help 2>&1 || true)
tensorrt_version=$(grep --max-count=1 --only-matching 'TensorRT v[0-9]*' <<<"$help" || echo unknown)
# Types are those of the ONNX file, as validated. TensorRT 10 does so where it is told, TensorRT 11 always: there the flag
# is "a no-op", or gone, as are those that let the builder choose types (--fp16).
typed=()
case $help in
*--stronglyTyped*no-op*) ;;
*--stronglyTyped*) typed=(--stronglyTyped) ;;
*--fp16*)
    echo "build-tensorrt: $tensorrt_version has no --stronglyTyped and would choose types itself; take 10 or later" >&2
    exit 1
    ;;
esac
gpu=$(nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader 2>/dev/null || echo unknown)

newest_version() { # MODEL
    local folder newest=
    for folder in "$repository/$1"/*/; do
        folder=$(basename "$folder")
        if [[ $folder =~ ^[1-9][0-9]*$ && (-z $newest || $folder -gt $newest) ]]; then
            newest=$folder
        fi
    done
    [[ -n $newest && -f $repository/$1/$newest/model.onnx ]] || {
        echo "build-tensorrt: $repository/$1 holds no model.onnx; run \`lychee export\` again" >&2
        return 1
    }
    echo "$repository/$1/$newest"
}

build() { # MODEL ARGUMENT...
    local model=$1 folder weights key partial
    shift
    set -- "${typed[@]}" "$@"
    folder=$(newest_version "$model")
    weights=$(cd "$folder" && sha256sum model.onnx*)
    key=$(printf '%s\n' "$weights" "$tensorrt_version" "$gpu" "$@" | sha256sum | cut -d ' ' -f 1)
    if [[ -s $folder/model.plan && $(cat "$folder/model.plan.key" 2>/dev/null) == "$key" ]]; then
        echo "$model: up to date"
        return
    fi
    echo "$model: building with $tensorrt_version for $gpu"
    partial=$(mktemp "$folder/.model.plan.XXXXXX")
    # shellcheck disable=SC2064  # the name of now
    trap "rm -f '$partial'" EXIT
    (
        set -x
        "$trtexec" --onnx="$folder/model.onnx" --saveEngine="$partial" "$@"
    )
    [[ -s $partial ]] || {
        echo "build-tensorrt: trtexec wrote no engine for $model" >&2
        return 1
    }
    chmod 644 "$partial"
    rm -f "$folder/model.plan.key"
    mv "$partial" "$folder/model.plan"
    echo "$key" >"$folder/model.plan.key"
    trap - EXIT
    echo "$model: built $folder/model.plan, $(stat --format %s "$folder/model.plan") bytes"
}

