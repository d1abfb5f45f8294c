#!/usr/bin/env bash
# The main job through the tool on small pictures of our own: tune.sh REGRAFT WRITE_MODEL. Recipe auto (preset found, probe, fine-tuning), the run folder,
# eval and predict on what was written, resuming after a kill to the same bytes, and the refusals of tune.
set -u
regraft=$1 write_model=$2
tests=$(cd "$(dirname "$0")" && pwd)
model=$tests/../examples/fashion6.onnx
pictures=$tests/data/fashion_small.npz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
checks=0 failures=0
export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive

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
holds() { # WHAT COMMAND...
    local what=$1
    shift
    checks=$((checks + 1))
    "$@" && return 0
    echo "FAIL: $what"
    failures=$((failures + 1))
}
accuracy() { sed -nE 's/.*"accuracy": ?([0-9.]+).*/\1/p' "$1" | head -n 1; }
above() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > b) }'; }

expect 0 "recipe auto" "$regraft" tune "$model" --data "$pictures" -o tuned.onnx --run run --epochs 4 --seed 1
for file in arguments.txt environment.txt metrics.jsonl metrics.csv result.json checkpoint probe_val.json tune_test.json; do
    holds "the run folder has $file" test -s run/$file
done
expect 0 "eval needs no flag" "$regraft" eval tuned.onnx --data "$pictures" --json
holds "better than chance by far" above "$(accuracy out)" 0.6
expect 0 "predict needs no flag" "$regraft" predict tuned.onnx --data "$pictures"
expect 0 "features of the tuned model" "$regraft" features tuned.onnx --data "$pictures" -o features.npz
expect 0 "probe alone" "$regraft" tune "$model" --data "$pictures" --train head -o head.onnx
expect 1 "frozen tensors are the same, the head is not" "$regraft" diff "$model" head.onnx
expect 0 "from scratch" "$regraft" tune "$model" --data "$pictures" --init scratch --epochs 2 -o scratch.onnx
expect 0 "an MLP head, balanced classes, accumulation, clipping" "$regraft" tune "$model" --data "$pictures" --hidden 16 --balance \
    --accumulate 2 --batch 16 --clip-norm 1 --label-smoothing 0.1 --epochs 2 -o mlp.onnx --json
for optimizer in sgd adagrad rmsprop adam; do
    expect 0 "optimizer $optimizer" "$regraft" tune "$model" --data "$pictures" --optimizer $optimizer --schedule linear --warmup 2 --epochs 1 \
        --augment strong --preset 0..1 -o o.onnx
done

# bf16: trains where the processor has it, is refused where not (here: hidden from the library); auto takes what there is
bf16=0
grep -qE "avx512_bf16|amx_bf16" /proc/cpuinfo || bf16=7
expect $bf16 "training in bf16" "$regraft" tune "$model" --data "$pictures" --precision bf16 --epochs 2 --preset 0..1 -o b.onnx
[ $bf16 = 7 ] || expect 0 "what bf16 trained, evaluated in f32" "$regraft" eval b.onnx --data "$pictures" --json
expect 7 "no bf16 without instructions for it" env ONEDNN_MAX_CPU_ISA=AVX512_CORE "$regraft" tune "$model" --data "$pictures" \
    --precision bf16 -o none.onnx
holds "it says so" grep -q "has no bfloat16 arithmetic" err
expect 0 "auto takes f32 then" env ONEDNN_MAX_CPU_ISA=AVX512_CORE "$regraft" tune "$model" --data "$pictures" --precision auto \
    --recipe probe -o auto.onnx
holds "and says so" grep -q "computes in f32" out err
expect 2 "plain kernels are f32" "$regraft" tune "$model" --data "$pictures" --precision bf16 --plain-kernels -o none.onnx

# memory: a promise that is kept, or refused before the first step with what would do (a sanitizer keeps what was freed; here it must not)
limited=(env ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=0:thread_local_quarantine_size_kb=0" "$regraft" tune "$model" --data "$pictures" --preset 0..1 --recipe plain --epochs 1 --batch 64 --json)
promise() { # WHAT COMMAND...: too little is refused, what is named then does, and peak and bill keep to it
    local what=$1 least total peak
    shift
    expect 7 "$what: too little memory" "$@" --memory 1M -o limited.onnx
    holds "$what: it names what would do" grep -qE "the smallest that would do is [0-9]+M" err
    holds "$what: and nothing is written" test ! -e limited.onnx
    least=$(sed -nE 's/.*would do is ([0-9]+)M.*/\1/p' err)
    expect 0 "$what: what was named" "$@" --memory "$((least + 2))M" -o limited.onnx
    total=$(sed -nE 's/.*"event":"memory".*"total":([0-9]+).*/\1/p' out | head -n 1)
    peak=$(sed -nE 's/.*"peak_resident": ?([0-9]+).*/\1/p' out | head -n 1)
    holds "$what: the process keeps to it within 3 %" test "${peak:-0}" -gt 0 -a "$((${peak:-0} * 100))" -le "$((103 * ((least + 2) << 20)))"
    holds "$what: the bill keeps to it" test "${total:-0}" -gt 0 -a "${total:-0}" -le "$(((least + 2) << 20))"
    rm -f limited.onnx
}
promise training "${limited[@]}"
expect 0 "without a limit, profiled" "${limited[@]}" -o whole.onnx --profile --trace trace.json
holds "the profile tells steps and peaks" grep -q "peaks measured" err
holds "and the trace is one of Chrome's" grep -q '"traceEvents"' trace.json
holds "the result tells the memory" grep -q '"memory": *{"parameters"' out
# the same of a head on cached features, where running the frozen part is all there is
probed=(env ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=0:thread_local_quarantine_size_kb=0" "$regraft" tune "$model" --data "$pictures" --preset 0..1 --train head --batch 64 --json)
promise features "${probed[@]}"

# what is frozen runs once and gives the losses that running it in every epoch does; in a file, rounded, and in views of augmented pictures
losses() { sed -nE 's/.*"event":"step".*"loss":([-0-9.e+]+).*/\1/p' "$1/metrics.jsonl"; }
near() { # RUN RUN TOLERANCE: as many losses, at least 12, that near
    paste <(losses "$1") <(losses "$2") | awk -v t="$3" '{ n++; d = $1 - $2; if (NF != 2 || d > t * $2 || -d > t * $2) bad++ } END { exit !(n >= 12 && bad == 0) }'
}
frozen=("$model" --data "$pictures" --preset 0..1 --recipe plain --train last:1 --epochs 3 --batch 32 --optimizer adam --shuffle)
expect 0 "the frozen part in every epoch" "$regraft" tune "${frozen[@]}" --cache off -o off.onnx --run off.run
expect 0 "the frozen part once" "$regraft" tune "${frozen[@]}" -o once.onnx --run once.run
holds "it says so" grep -q "the frozen part ran once over the samples, .*kept in memory" err
holds "the same losses" near once.run off.run 1e-5
expect 0 "the same model" "$regraft" diff off.onnx once.onnx --json
expect 0 "features in a file" env TMPDIR="$work" "$regraft" tune "${frozen[@]}" --memory 900M -o file.onnx --run file.run
holds "the file is named" grep -q "kept in a temporary file" err
holds "the same losses from the file" near file.run off.run 1e-5
holds "nothing of it stays" test -z "$(find . -name 'regraft-features-*')"
expect 0 "features in bf16" "$regraft" tune "${frozen[@]}" --cache bf16 -o half.onnx --run half.run
holds "losses are near" near half.run off.run 2e-2
holds "and not the same" test "$(losses half.run | md5sum)" != "$(losses off.run | md5sum)"
views=("$model" --data "$pictures" --preset 0..1 --train last:1 --init scratch --epochs 3 --batch 32 --augment light --patience 0)
expect 0 "augmented anew" "$regraft" tune "${views[@]}" -o anew.onnx
holds "the frozen part runs in every epoch" grep -q "runs in every epoch, as pictures are augmented anew; --views" err
expect 0 "two views" "$regraft" tune "${views[@]}" --views 2 -o views.onnx --run views.run
holds "they are counted" grep -q "in 2 views of each" err
expect 0 "two views again" "$regraft" tune "${views[@]}" --views 2 -o again.onnx
holds "the same bytes" cmp -s views.onnx again.onnx
expect 0 "views of what is all trained" "$regraft" tune "${views[@]}" --train all --views 2 -o again.onnx
holds "have no use, it says" grep -q "no part of the model can be run beforehand" err
expect 0 "views of what is not augmented" "$regraft" tune "${views[@]}" --augment none --views 2 -o again.onnx
holds "are one, it says" grep -q "all views would be the same; one is kept" err
if [ "$(id -u)" != 0 ]; then # root may write everywhere
    mkdir closed && chmod 500 closed
    expect 0 "no file can be made" env TMPDIR="$work/closed" "$regraft" tune "${frozen[@]}" --memory 900M -o file.onnx --run closed.run
    holds "the frozen part runs in every epoch then" grep -q "runs in every epoch: its features, .* have no room in" err
    holds "the same losses without" near closed.run off.run 1e-5
fi

# what is kept is a sample's own: none where samples meet before the border, nor where its first dim has the batch's size by chance;
# live statistics, and an addition of what is trained, after the border do not stand against it
cases=(
    "means|y = Gemm(s, w, b)|f = Flatten(x) a = Gemm(f, k, kb) m = ReduceMean<keepdims = 1>(a, zero) s = Sub(a, m)|runs in every epoch: 's' at the border"
    "axes|q = MatMul(t, w) z = Transpose<perm = [1, 0, 2]>(q) v = ReduceMean<keepdims = 0>(z, one) y = Add(v, b)|i = Flatten<axis = 3>(x) h = Reshape(i, rows) j = Transpose<perm = [1, 0, 2]>(h) p = MatMul(j, kk) t = Relu(p)|runs in every epoch: 't' at the border"
    "live|n = BatchNormalization<training_mode = 1>(a, scale, shift, mean, var) r = Relu(n) y = Gemm(r, w, b)|f = Flatten(x) a = Gemm(f, k, kb)|frozen part ran once"
    "branch|c = Conv<strides = [4, 4]>(x, ck2) s = Add(a, c) r = Relu(s) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, w, b)|a = Conv<strides = [4, 4]>(x, ck)|frozen part ran once"
)
for case in "${cases[@]}"; do
    IFS='|' read -r name trained still says <<<"$case"
    "$write_model" - part.onnx <<MODEL || failures=$((failures + 1))
<ir_version: 8, opset_import: ["" : 18]>
part (float[N,1,28,28] x) => (float[N,10] y) <
    float[784,8] k = {0.01, -0.02, 0.03, 0.005, -0.015, 0.001, 0.02, ...}, float[8] kb = {0.1, -0.1, 0.05, ...},
    float[28,8] kk = {0.1, -0.2, 0.3, 0.05, -0.15, 0.01, ...}, float[8,1,4,4] ck = {0.1, -0.2, 0.3, 0.05, -0.15, 0.01, ...},
    float[8,1,4,4] ck2 = {0.2, -0.1, 0.1, 0.15, -0.05, 0.02, -0.3, ...}, int64[3] rows = {-1, 28, 28}, int64[1] zero = {0}, int64[1] one = {1},
    float[8] scale = {1, 0.5, ...}, float[8] shift = {0, 0.1, ...}, float[8] mean = {0, ...}, float[8] var = {1, ...},
    float[8,10] w = {0.3, -0.2, 0.1, -0.15, 0.25, -0.3, 0.2, -0.05, 0.12, -0.11, 0.02, ...}, float[10] b = {0.1, -0.1, 0.05, -0.05, 0, ...}
> { $still $trained }
MODEL
    parted=(part.onnx --data "$pictures" --preset 0..1 --recipe plain --train w --train b --train scale --train shift --train ck2 --epochs 3 --batch 28
        --optimizer adam --shuffle)
    [ $name = live ] || parted=("${parted[@]/scale/b}") parted=("${parted[@]/shift/b}")
    [ $name = branch ] || parted=("${parted[@]/ck2/b}")
    rm -rf every.run kept.run
    expect 0 "$name: in every epoch" "$regraft" tune "${parted[@]}" --cache off -o off.onnx --run every.run
    expect 0 "$name: with features where they are the same" "$regraft" tune "${parted[@]}" -o once.onnx --run kept.run
    holds "$name: '$says'" grep -q "$says" err
    holds "$name: the same losses" near kept.run every.run 1e-5
done

# what is promised holds with frozen weights in the layouts of several plans, in every epoch and before the first; pages of the file may lie beside
"$write_model" - wide.onnx <<'MODEL' || failures=$((failures + 1))
<ir_version: 8, opset_import: ["" : 18]>
wide (float[N,1,28,28] x) => (float[N,10] y) <
    float[6000,784] k = {0.01, -0.02, 0.03, 0.005, -0.015, 0.001, 0.02, ...}, float[6000] kb = {0.1, -0.1, 0.05, ...},
    float[2000,6000] m = {0.01, -0.02, 0.015, 0.005, -0.015, 0.001, 0.02, ...}, float[10,2000] w = {0.3, -0.2, 0.1, -0.15, 0.25, -0.3, ...}
> { f = Flatten(x) a = Gemm<transB = 1>(f, k, kb) r = Relu(a) c = Gemm<transB = 1>(r, m) s = Relu(c) y = Gemm<transB = 1>(s, w) }
MODEL
for cache in off auto; do
    wide=("$regraft" tune wide.onnx --data "$pictures" --preset 0..1 --recipe plain --train w --epochs 2 --batch 24 --optimizer sgd --cache $cache)
    expect 7 "cache $cache: too little memory for wide layers" "${wide[@]}" --memory 1M -o limited.onnx
    least=$(sed -nE 's/.*smallest that would do is ([0-9]+)M.*/\1/p' err)
    expect 0 "cache $cache: what was named for wide layers" "${wide[@]}" --memory "${least}M" -o limited.onnx --json
    peak=$(sed -nE 's/.*"peak_resident": ?([0-9]+).*/\1/p' out | head -n 1)
    holds "cache $cache: they keep to it" test "${peak:-0}" -gt 0 -a "$((${peak:-0} * 100))" -le "$((103 * (${least:-0} << 20) + 100 * $(stat -c %s wide.onnx)))"
    expect 0 "cache $cache: wide layers without a limit" "${wide[@]}" -o limited.onnx --json
    peak=$(sed -nE 's/.*"peak_resident": ?([0-9]+).*/\1/p' out | head -n 1)
    total=$(sed -nE 's/.*"event":"memory".*"total":([0-9]+).*/\1/p' out | sort -n | tail -n 1)
    holds "cache $cache: they keep to their bill" test "${peak:-0}" -gt 0 -a "$((${peak:-0} * 100))" -le "$((103 * ${total:-0} + 100 * $(stat -c %s wide.onnx)))"
done

# unreadable pictures: named once, and the run is that without them
mkdir -p good/train/{a,b} good/val/{a,b}
for i in 1 2 3 4 5 6; do
    cp "$tests"/data/rgb.jpg good/train/a/$i.jpg; cp "$tests"/data/grey.jpg good/train/b/$i.jpg
    cp "$tests"/data/orientation$i.jpg good/val/a/$i.jpg; cp "$tests"/data/progressive.jpg good/val/b/$i.jpg
done
cp -r good bad
cp "$tests"/data/cut.jpg bad/train/a/0.jpg
cp "$tests"/data/cut.png bad/val/b/3b.png
cp out bad/val/b/9.jpg
pictures_run=("$model" --epochs 2 --seed 1)
expect 3 "an unreadable picture stops the run" "$regraft" tune "${pictures_run[@]}" --data bad -o bad.onnx
expect 0 "without the unreadable ones" "$regraft" tune "${pictures_run[@]}" --data good -o good.onnx
expect 0 "leaving the unreadable ones out" "$regraft" tune "${pictures_run[@]}" --data bad --skip-broken -o bad.onnx --run bad.run
holds "each is named once" test "$(grep -c '^warning: skipped: ' err)" = 3
holds "and makes no difference" cmp -s good.onnx bad.onnx
expect 0 "eval leaves them out too" "$regraft" eval bad.onnx --data bad --skip-broken --json
holds "and counts the rest" grep -q '"samples": 12' out

# several labels a picture, from a table: bce, a head with their names, AUC and F1 of each
{
    echo "path,split,grey,turned"
    for i in 1 2 3 4 5 6; do
        echo "good/train/a/$i.jpg,train,0,0"; echo "good/train/b/$i.jpg,train,1,0"; echo "good/val/a/$i.jpg,train,0,1"
        echo "good/val/a/$i.jpg,val,0,1"; echo "good/val/b/$i.jpg,val,0,0"
    done
} >labels.csv
expect 0 "several labels" "$regraft" tune "$model" --data labels.csv -o labels.onnx --run labels.run --epochs 2
holds "each label is measured" grep -q '"name": "turned", "positives": 6, "accuracy"' labels.run/tune_val.json
expect 0 "eval on labels" "$regraft" eval labels.onnx --data labels.csv --json
holds "labels by name" grep -q '"kind": "labels".*"name": "turned"' out
expect 0 "predict on labels" "$regraft" predict labels.onnx --data good/val/a --json
holds "an object a line, every label" grep -q '^{"schema": "regraft.predict/1", .*"grey".*}$' out
sed 's/grey,turned/turned,grey/' labels.csv >swapped.csv
expect 3 "columns in another order" "$regraft" eval labels.onnx --data swapped.csv
expect 0 "several labels of bytes" "$regraft" tune "$model" --data "$tests"/data/labels.npz -o bytes.onnx --epochs 1 --held-out 0.25
expect 0 "eval on labels of bytes" "$regraft" eval bytes.onnx --data "$tests"/data/labels.npz --json
holds "they are labels, all of them" grep -q '"kind": "labels", "samples": 8, .*"name": "1"' out
sed 's/,1$/,0.5/' labels.csv >numbers.csv
expect 0 "numbers of a picture" "$regraft" tune "$model" --data numbers.csv -o numbers.onnx --run numbers.run --epochs 1
holds "numbers are measured" grep -q '"name": "turned", "rmse"' numbers.run/tune_val.json

# resuming: the same bytes as without the kill
plain=("$model" --data "$pictures" --preset 0..1 --epochs 40 --patience 0 --seed 2 -q)
expect 0 "an uninterrupted run" "$regraft" tune "${plain[@]}" -o whole.onnx --run whole
"$regraft" tune "${plain[@]}" -o resumed.onnx --run broken >/dev/null 2>&1 &
child=$!
for _ in $(seq 600); do
    [ "$(grep -c '"event":"epoch"' broken/metrics.jsonl 2>/dev/null)" -ge 2 ] 2>/dev/null && break
    sleep 0.05
done
kill -9 $child 2>/dev/null
wait $child 2>/dev/null
if [ ! -e resumed.onnx ]; then
    expect 0 "resuming" "$regraft" tune "${plain[@]}" -o resumed.onnx --resume broken
fi
holds "a resumed run gives the same bytes" cmp -s whole.onnx resumed.onnx
records() { grep -E '"event":"(step|epoch)"' "$1/metrics.jsonl" | sed 's/,"seconds".*//'; sed 's/,[^,]*$//' "$1/metrics.csv"; }
holds "and the same records, none twice" cmp -s <(records whole) <(records broken)

# Ctrl-C, in a run without a folder: what is needed to go on is kept, and said; nothing of it stays in the end
"$regraft" tune "${plain[@]}" -o stopped.onnx >out 2>err &
child=$!
for _ in $(seq 600); do
    [ -e stopped.onnx.run/checkpoint ] && break
    sleep 0.02
done
# no thread that computes may take a signal: the library's code has numbers where its frame would go
takers=0
for thread in /proc/$child/task/*/status; do
    blocked=$(sed -n 's/^SigBlk:[[:space:]]*//p' "$thread" 2>/dev/null)
    [ -z "$blocked" ] || [ $((16#$blocked & 0x4002)) = $((0x4002)) ] || takers=$((takers + 1))
done
kill -INT $child
wait $child
code=$?
if [ ! -e stopped.onnx ]; then
    holds "signals are for a thread of their own" test $takers = 1 # the one that waits shows them as not blocked
    holds "an interrupted run is exit 130" test $code = 130
    holds "it says how to go on" grep -q -- '--resume stopped.onnx.run$' err
    expect 0 "going on" "$regraft" tune "${plain[@]}" -o stopped.onnx --resume stopped.onnx.run
fi
holds "an interrupted run gives the same bytes" cmp -s whole.onnx stopped.onnx
holds "a finished run leaves no folder that nobody asked for" test ! -e tuned.onnx.run -a ! -e o.onnx.run
expect 3 "resuming what is not there" "$regraft" tune "${plain[@]}" -o x.onnx --resume nowhere

lenet=$tests/parity_cases/lenet
expect 0 "tracing moved nothing" "$regraft" tune "$lenet/model.onnx" --data "$lenet/train.npz" --recipe plain --epochs 1 \
    --example-input "$lenet/probe.npz" -o traced.onnx
holds "and that is said" grep -q "no live BatchNorm" err

expect 2 "output equal to input" "$regraft" tune "$model" --data "$pictures" -o "$model"
expect 3 "data that is not there" "$regraft" tune "$model" --data nowhere -o x.onnx
expect 3 "a model that is not there" "$regraft" tune nowhere.onnx --data "$pictures" -o x.onnx
expect 7 "a folder that is not there" "$regraft" tune "$model" --data "$pictures" -o no/such/x.onnx
expect 2 "a pattern that matches nothing" "$regraft" tune "$model" --data "$pictures" --train 'nothing*' -o x.onnx
expect 8 "a rate that diverges" "$regraft" tune "$model" --data "$pictures" --preset 0..1 --optimizer sgd --momentum 0.9 --lr 1e6 --epochs 3 -o x.onnx
holds "nothing was written by a refused run" test ! -e x.onnx
holds "the last good state is kept" test -s x.onnx.run/checkpoint
expect 0 "and can be gone on from" "$regraft" tune "$model" --data "$pictures" --preset 0..1 --optimizer sgd --momentum 0.9 --lr 1e-4 --epochs 2 -o y.onnx \
    --resume x.onnx.run
holds "what has changed is said" grep -q 'resumed with lr: 0.0001 (before: 1000000), epochs: 2 (before: 3): the result' err
expect 3 "resuming with another seed" "$regraft" tune "${plain[@]}" --seed 3 -o z.onnx --resume whole
holds "what differs is named" grep -q 'it has seed: 2; this run has seed: 3' err
echo "$checks checks, $failures failures"
[ $failures = 0 ]
