#!/usr/bin/env bash
# Includes point left: onnx/base -> onnx -> passes -> data -> runtime -> cli. Prints offenders, exits 1 when there are any.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0
forbid() { # FOLDER PATTERN: no file under FOLDER includes a header that matches
    if grep -rnE "^#include \"($2)" "$1" --include='*.c' --include='*.h'; then bad=1; fi
}
forbid onnx/base '(onnx/[a-z_]+\.h|passes/|data/|runtime/|cli/)'
forbid onnx '(passes|data|runtime|cli)/'
forbid passes '(data|runtime|cli)/'
forbid data '(passes|runtime|cli)/'
forbid runtime 'cli/'
if grep -rnE '#include <(oneapi/|omp)' onnx passes data cli; then bad=1; fi
exit $bad
