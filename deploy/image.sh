#!/bin/sh
# Build the image of deploy/Containerfile: image.sh TAG [OPTION...]. Options go to docker build or buildah build.
# Its times are those of the last commit, so that two builds of one commit have the same layers.
set -eu
cd "$(dirname "$0")/.."
tag=$1
shift
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
set -- --file deploy/Containerfile --tag "$tag" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
    --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" "$@"

if docker version >/dev/null 2>&1; then
    exec docker build "$@" .
fi
command -v buildah >/dev/null || { echo "image: neither docker nor buildah can be used here" >&2 && exit 1; }
# The format of Docker, because that of OCI has no health check. `--timestamp` sets the times of all files.
exec buildah build --format docker --timestamp "$SOURCE_DATE_EPOCH" "$@" .
