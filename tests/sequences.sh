#!/usr/bin/env bash
# Sequences, several targets and several tasks through the tool: sequences.sh REGRAFT.
set -u
regraft=$1
tests=$(cd "$(dirname "$0")" && pwd)
cases=$tests/parity_cases
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
checks=0 failures=0
export OMP_NUM_THREADS=1

expect() { # STATUS WHAT COMMAND...
    local want=$1 what=$2 got=0
    shift 2
    "$@" >out 2>err || got=$?
    checks=$((checks + 1))
    [ "$got" = "$want" ] && return 0
    echo "FAIL: $what: exit $got instead of $want"
    sed 's/^/    /' err | tail -n 5
    failures=$((failures + 1))
}
says() { # WHAT FILE TEXT
    checks=$((checks + 1))
    grep -qF -- "$3" "$2" && return 0
    echo "FAIL: $1: '$3' is not in $2"
    failures=$((failures + 1))
}

# several tasks, each with data of its own
two=$cases/multitask/model.onnx
a=logits_0=$tests/data/task_a.npz b=logits_1=$tests/data/task_b.npz
expect 0 "two tasks" "$regraft" tune "$two" --task "$a" --task "$b" --epochs 2 --batch 16 -o both.onnx --run both
says "a score for each task" both/metrics.jsonl '"val_targets":[{"target":"logits_0","loss":'
says "a score for each task in the result" both/result.json '"target": "logits_1"'
expect 2 "an output that is not there" "$regraft" tune "$two" --task "other=$tests/data/task_a.npz" -o x.onnx
says "names the outputs" err "there are: logits_0, logits_1"
expect 2 "a task without data" "$regraft" tune "$two" --task logits_0 -o x.onnx
expect 2 "a task twice" "$regraft" tune "$two" --task "$a" --task "$a" -o x.onnx
expect 2 "tasks and data" "$regraft" tune "$two" --task "$a" --data "$tests/data/task_a.npz" -o x.onnx
expect 2 "neither" "$regraft" tune "$two" -o x.onnx
expect 2 "tasks with --val" "$regraft" tune "$two" --task "$a" --val "$tests/data/task_b.npz" -o x.onnx
expect 3 "a class too many for the head" "$regraft" tune "$two" --task "logits_0=$tests/data/task_b.npz" --epochs 1 -o x.onnx
expect 0 "one trunk with two heads, made and trained" "$regraft" attach "$two" --at "$("$regraft" heads "$two" --json |
    sed -nE 's/.*"features": ?"([^"]+)".*/\1/p' | head -n 1)" --task colour:4 --task shape:6 -o fresh.onnx
expect 0 "trains them" "$regraft" tune fresh.onnx --task "colour=$tests/data/task_a.npz" --task "shape=$tests/data/task_b.npz" --epochs 1 \
    --loss-weight 1,0.5 -o tuned.onnx

# several targets of one data set, weighted
expect 0 "weights of losses" "$regraft" tune "$two" --data "$cases/multitask/train.npz" --loss-weight 1,0 --recipe plain -o w.onnx
expect 2 "a weight too few" "$regraft" tune "$two" --data "$cases/multitask/train.npz" --loss-weight 1 -o x.onnx
says "counts them" err "1 weights for 2 losses"
expect 2 "a weight that is no number" "$regraft" tune "$two" --data "$cases/multitask/train.npz" --loss-weight 1,x -o x.onnx

# gradients of inputs
lenet=$cases/lenet
expect 0 "how a score changes with the pixels" "$regraft" run "$lenet/model.onnx" --input "$lenet/probe.npz" --output g.npz --gradient x
expect 0 "of one class, as a table" "$regraft" run "$lenet/model.onnx" --input "$lenet/probe.npz" --gradient x --class 2
says "with the input's shape" out "x.gradient  float32[8,1,28,28]"
expect 0 "of a loss" "$regraft" run "$lenet/model.onnx" --input "$lenet/train.npz" --gradient x --loss softmax_ce --json
says "among the results" out '"name": "x.gradient"'
expect 3 "of a loss without targets" "$regraft" run "$lenet/model.onnx" --input "$lenet/probe.npz" --gradient x --loss softmax_ce
expect 2 "of a class that is not there" "$regraft" run "$lenet/model.onnx" --input "$lenet/probe.npz" --gradient x --class 10
expect 2 "an input that is not there" "$regraft" run "$lenet/model.onnx" --input "$lenet/probe.npz" --gradient pixels
expect 2 "an input of integers" "$regraft" run "$cases/bert/model.onnx" --input "$cases/bert/probe.npz" --gradient input_ids
says "names its type" err "input 'input_ids' is int64"
expect 2 "a class, but of no gradient" "$regraft" run "$lenet/model.onnx" --input "$lenet/probe.npz" --class 1

# lengths
bert=$cases/bert
expect 2 "a length that the model fixes" "$regraft" tune "$bert/model.onnx" --data "$bert/train.npz" --lengths cut --recipe plain -o x.onnx
says "says why" err "the model fixes the length"
# files of other exporters: scores beside labels, a dense layer as a convolution over the map, batch 1, weights listed as inputs or in Constant nodes
for net in sklearn keras tf paddle matlab ir3; do
    expect 0 "$net, a new head" "$regraft" tune "$tests/exporters/$net.onnx" --data "$tests/exporters/$net.npz" --epochs 2 -o $net.onnx
    expect 0 "$net, as it is" "$regraft" tune "$tests/exporters/$net.onnx" --data "$tests/exporters/$net.npz" --recipe plain -o ${net}_plain.onnx
done
expect 0 "what attach adds" "$regraft" attach "$tests/exporters/ir3.onnx" --classes 2 -o old.onnx
expect 0 "makes version 3" "$regraft" inspect old.onnx --json
says "version 4, where initializers need not be inputs" out '"ir_version": 4'

for file in x.onnx; do
    checks=$((checks + 1))
    [ ! -e "$file" ] || { echo "FAIL: $file was written"; failures=$((failures + 1)); }
done

echo "$checks checks, $failures failures"
[ "$failures" = 0 ]
