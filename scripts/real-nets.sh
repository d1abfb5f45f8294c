#!/usr/bin/env bash
# Real nets end to end, for a developer with Python packages at hand (tests/real/nets.py names them); no part of CI.
#
#     scripts/real-nets.sh PYTHON REGRAFT SST2 PICTURES OUT [NET...]
#
# SST2: folder with train.tsv and dev.tsv (text<TAB>label). PICTURES: a folder of class folders, or of train/ and val/. Each net is exported by PyTorch, adapted and
# trained by REGRAFT, read by onnx.checker and ONNX Runtime. One line a net: what was measured, what is asked, ok or FAIL; exit 1 on a FAIL.
set -euo pipefail
[ $# -ge 5 ] || { sed -n 2,8p "$0" >&2; exit 2; }
python=$1 regraft=$(realpath "$2") sst2=$(realpath "$3") pictures=$(realpath "$4") out=$5
shift 5
here=$(cd "$(dirname "$0")/../tests/real" && pwd)
[ $# -gt 0 ] || set -- minilm gpt2 bilstm unet vit detector
mkdir -p "$out"
cd "$out"
failures=0

make() { # NET: exported once
    [ -s "$1/model.onnx" ] || "$python" -W ignore "$here/nets.py" . "$sst2" "$1" >"$1.export.log" 2>&1 ||
        { echo "$1: the export failed, see $out/$1.export.log"; return 1; }
}
last() { # RUN KEY: the last epoch's value, or the best one of the run's result
    sed -nE 's/.*"event":"epoch".*"'"$2"'":([0-9.eE+-]+).*/\1/p' "$1/metrics.jsonl" | tail -n 1
}
first_loss() { sed -nE 's/.*"event":"step".*"loss":([0-9.eE+-]+).*/\1/p' "$1/metrics.jsonl" | head -n 1; }
holds() { awk "BEGIN { exit !($1) }"; }
verdict() { # NET CONDITION TEXT
    local word=ok
    holds "$2" || { word=FAIL; failures=$((failures + 1)); }
    printf '%-9s %-90s %s\n' "$1" "$3" "$word"
}
runtime() { # MODEL ARRAYS: the largest difference between ONNX Runtime and regraft, relative to the largest output
    "$regraft" run "$1" --input "$2" --output "$1.npz" && "$python" "$here/agree.py" "$1" "$2" "$1.npz"
}

net_minilm() { # PyTorch with the same settings: 86.9 % after one epoch
    "$regraft" attach minilm/model.onnx --at sentence --classes 2 -o minilm/start.onnx -q
    "$regraft" tune minilm/start.onnx --data minilm/train.npz --val minilm/val.npz --recipe plain --lengths cut --optimizer adamw --lr 3e-5 \
        --weight-decay 0.01 --batch 32 --epochs 1 --run minilm/run -o minilm/tuned.onnx -q >/dev/null
    local accuracy difference
    accuracy=$(last minilm/run val_accuracy) difference=$(runtime minilm/tuned.onnx minilm/val.npz)
    verdict minilm "$accuracy >= 0.86 && $difference <= 1e-4" "accuracy $accuracy on dev after one epoch (0.86 asked); ONNX Runtime within $difference"
}

net_gpt2() {
    "$regraft" tune gpt2/model.onnx --data gpt2/train.npz --val gpt2/val.npz --recipe plain --lengths keep --loss lm --optimizer adamw --lr 1e-3 --batch 32 \
        --epochs 4 --run gpt2/run -o gpt2/tuned.onnx -q >/dev/null
    local before after difference
    before=$(first_loss gpt2/run) after=$(last gpt2/run val_loss) difference=$(runtime gpt2/tuned.onnx gpt2/val.npz)
    verdict gpt2 "$after < $before - 1.5 && $difference <= 1e-4" "loss a token $before at first, $after on dev (1.5 less asked); ONNX Runtime within $difference"
}

net_bilstm() {
    "$regraft" tune bilstm/model.onnx --data bilstm/train.npz --val bilstm/val.npz --keep-head --lr 2e-3 --batch 32 --epochs 5 --run bilstm/run \
        -o bilstm/tuned.onnx -q >/dev/null
    local accuracy difference
    accuracy=$("$regraft" eval bilstm/tuned.onnx --data bilstm/val.npz --json | sed -nE 's/.*"accuracy": ?([0-9.]+).*/\1/p' | head -n 1)
    difference=$(runtime bilstm/tuned.onnx bilstm/val.npz)
    verdict bilstm "$accuracy >= 0.72 && $difference <= 1e-4" "accuracy $accuracy on dev from random weights (0.72 asked); ONNX Runtime within $difference"
}

net_unet() {
    "$regraft" tune unet/model.onnx --data unet/train.npz --val unet/val.npz --loss dice --lr 3e-3 --batch 16 --epochs 8 --run unet/run -o unet/tuned.onnx \
        -q >/dev/null
    local iou difference
    iou=$(last unet/run mean_iou) difference=$(runtime unet/tuned.onnx unet/val.npz)
    verdict unet "$iou >= 0.7 && $difference <= 1e-4" "mean IoU $iou on new drawings (0.7 asked); ONNX Runtime within $difference"
}

net_vit() {
    "$regraft" tune vit/model.onnx --data "$pictures" --epochs 3 --run vit/run -o vit/tuned.onnx -q >/dev/null
    local before after difference
    before=$(first_loss vit/run) after=$(last vit/run train_loss)
    "$python" "$here/agree.py" --make vit/tuned.onnx vit/x.npz 3
    difference=$(runtime vit/tuned.onnx vit/x.npz)
    verdict vit "$after < $before && $difference <= 1e-4" "a new head on pictures: loss $before, then $after; ONNX Runtime within $difference"
}

net_detector() { # the backbone's first map, its boxes and scores cut off
    local map difference
    map=$(cat detector/map.txt)
    "$regraft" cut detector/model.onnx --at "$map" -o detector/trunk.onnx -q
    "$regraft" attach detector/trunk.onnx --classes 2 --pool mean -o detector/start.onnx -q
    "$regraft" tune detector/start.onnx --data "$pictures" --epochs 2 --run detector/run -o detector/tuned.onnx -q >/dev/null
    "$python" "$here/agree.py" --make detector/tuned.onnx detector/x.npz 3
    difference=$(runtime detector/tuned.onnx detector/x.npz)
    verdict detector "$difference <= 1e-4" "cut at '$map', a classifier on it trained; ONNX Runtime within $difference"
}

for net in "$@"; do
    if ! make "$net" || ! "net_$net"; then
        printf '%-9s %s\n' "$net" "FAIL: a step failed"
        failures=$((failures + 1))
    fi
done
[ "$failures" = 0 ]
