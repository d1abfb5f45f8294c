#!/usr/bin/env bash
# The main job on real pictures, set-up included: a small CNN that knows six of Fashion-MNIST's classes learns the other four from 50
# labelled pictures each. Shows the graph, the head that is cut, training, and a table: from scratch, feature extraction, fine-tuning.
# Writes build/demo/tuned.onnx and checks it. Needs Debian 12 or later; under three minutes on two cores after the build.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

say "packages"
setup_packages $(build_packages) dataset-fashion-mnist
say "build"
mkdir -p build
configure release >build/demo.log 2>&1 && cmake --build build/release -j "$(nproc)" --target regraft >>build/demo.log 2>&1 || {
    tail -n 40 build/demo.log >&2
    exit 1
}
regraft=build/release/regraft
model=examples/fashion6.onnx
pictures=/usr/share/datasets/fashion-mnist
out=build/demo
mkdir -p "$out/data"
# IDX files under the names that a folder of IDX data has: train-..., test as t10k-...
for file in "$pictures"/*.gz; do ln -sf "$file" "$out/data/"; done

say "the model: $model"
"$regraft" inspect "$model"
say "where its head is"
"$regraft" heads "$model"

common=("$model" --data "$out/data" --only 2,5,6,8 --per-class 50 --preset 0..1 --seed 0)
declare -A accuracy seconds trainable
measure() { # NAME FLAGS...: one run; accuracy on the 4,000 test pictures
    local name=$1 begin end
    shift
    say "$name: regraft tune $*"
    begin=$(date +%s.%N)
    "$regraft" tune "$@" --run "$out/$name"
    end=$(date +%s.%N)
    seconds[$name]=$(awk -v a="$begin" -v b="$end" 'BEGIN { printf "%.1f", b - a }')
    read -r "accuracy[$name]" "trainable[$name]" < <(
        tr ',{}' '\n\n\n' <"$out/$name/result.json" | awk -F: '/"test_accuracy"/ { a = $2 } /"trainable"/ { t = $2 } END { print a, t }')
}
measure scratch "${common[@]}" --init scratch --epochs 30 --lr 1e-3 -o "$out/scratch.onnx"
measure features "${common[@]}" --train head -o "$out/features.onnx"
measure tuned "${common[@]}" -o "$out/tuned.onnx"

say "on the 4,000 test pictures of the four new classes, after 200 labelled ones"
printf '%-22s %10s %10s %12s\n' '' accuracy seconds trainable
for name in scratch features tuned; do
    awk -v n="$name" -v a="${accuracy[$name]}" -v s="${seconds[$name]}" -v t="${trainable[$name]}" 'BEGIN {
        label["scratch"] = "from scratch"; label["features"] = "feature extraction"; label["tuned"] = "full fine-tuning"
        printf "%-22s %8.1f %% %10s %12d\n", label[n], 100 * a, s, t }'
done

say "checking tuned.onnx"
"$regraft" check "$out/tuned.onnx"
"$regraft" eval "$out/tuned.onnx" --data "$out/data" --known --part test
echo "done: $out/tuned.onnx"
