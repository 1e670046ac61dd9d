#!/bin/sh
# Write the images' pins anew, each with the hashes of its files: `make lock`, which brings uv.
# torch has a file of its own for each image, because its builds differ.
set -eu
cd "$(dirname "$0")"
lock() { uv pip compile --quiet --generate-hashes --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --no-annotate --no-header --upgrade "$@"; }
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
torch=$(sed -n 's/^torch==\([0-9.]*\)+cpu .*/\1/p' torch-cpu.lock)
echo 'torch ; python_version < "3"' > "$work/without-torch"
# What torch and the build of this package need, too.
printf '%s\n' setuptools sympy networkx filelock > "$work/more.in"
lock ../pyproject.toml "$work/more.in" --extra production --extra kubernetes --extra store \
	--constraint constraints.txt --override "$work/without-torch" --output-file requirements.lock
sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' requirements.lock > "$work/pins"
echo "torch==$torch" > "$work/torch.in"
lock "$work/torch.in" --constraint "$work/pins" --output-file torch-cuda.lock
