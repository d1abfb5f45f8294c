#!/usr/bin/env bash
# oneDNN 3.2 for GNU OpenMP with its headers, from the Python package index: fetch-onednn3.sh DIR -> DIR/include, DIR/lib.
# Fails when it cannot be had; nothing in the product needs it, it is the second library that CI builds against.
set -euo pipefail
target=${1:?a folder}
[ -e "$target/lib/libdnnl.so" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for package in onednn-cpu-gomp onednn-devel-cpu-gomp; do
    "$work/venv/bin/pip" download -q --no-deps -d "$work" "$package==2023.2.0"
done
for wheel in "$work"/*.whl; do python3 -m zipfile -e "$wheel" "$work/unpacked"; done
mkdir -p "$target"
cp -r "$work"/unpacked/*.data/data/lib "$work"/unpacked/*.data/data/include "$target/"
