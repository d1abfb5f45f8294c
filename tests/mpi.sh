#!/usr/bin/env bash
# tune on two processes: mpi.sh REGRAFT WRITE_MODEL. The same losses as one process, one writer, a killed process that ends the run with
# its checkpoint intact, going on from there to the same bytes, and the refusals. Skipped, with the reason, where MPI is not.
set -u
regraft=$1 write_model=$2
tests=$(cd "$(dirname "$0")" && pwd)
pictures=$tests/data/fashion_small.npz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
checks=0 failures=0
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

fails() { echo "FAIL: $1"; tail -n 5 err 2>/dev/null | sed 's/^/    /'; failures=$((failures + 1)); }
expect() { # STATUS WHAT COMMAND...
    local want=$1 what=$2 got=0
    shift 2
    "$@" >out 2>err </dev/null || got=$?
    checks=$((checks + 1))
    [ "$got" = "$want" ] || fails "$what: exit $got instead of $want"
}
holds() { # WHAT COMMAND...
    local what=$1
    shift
    checks=$((checks + 1))
    "$@" || fails "$what"
}

# No BatchNorm, so that parts of a batch do not meet; a tail that two processes cannot share evenly.
"$write_model" - net.onnx <<'MODEL' || exit 1
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,1,28,28] x) => (float[N,10] y) <
    float[8,1,5,5] k = {0.1, -0.2, 0.15, 0.05, -0.1, 0.2, -0.05, 0.12, 0.3, -0.3, 0.01, ...}, float[8] kb = {0.01, -0.01, 0.02, ...},
    float[16,8,3,3] m = {0.05, -0.03, 0.02, 0.07, -0.06, 0.01, -0.02, 0.04, 0.03, -0.05, 0.06, -0.01, 0.005, ...},
    float[16] mb = {0, ...}, float[10,16] w = {0.3, -0.2, 0.1, -0.15, 0.25, -0.3, 0.2, -0.05, 0.12, -0.11, 0.02, ...},
    float[10] b = {0.1, -0.1, 0.05, -0.05, 0, ...}
> {
    c = Conv<strides = [2, 2]>(x, k, kb) r = Relu(c) d = Conv<strides = [2, 2]>(r, m, mb) s = Relu(d)
    p = GlobalAveragePool(s) f = Flatten(p) y = Gemm<transB = 1>(f, w, b)
}
MODEL

# Layers large enough for several sums a step, each begun while earlier layers are still being differentiated.
"$write_model" - wide.onnx <<'MODEL' || exit 1
<ir_version: 8, opset_import: ["" : 17]>
wide (float[N,1,28,28] x) => (float[N,10] y) <
    float[1536,784] a = {0.01, -0.02, 0.03, 0.005, -0.015, 0.001, ...}, float[1536] ab = {0.1, -0.1, 0, ...},
    float[1024,1536] c = {0.02, 0.01, -0.01, -0.02, 0.0005, ...}, float[1024] cb = {0.1, 0.2, 0, ...},
    float[1024,1024] d = {-0.01, 0.02, 0.03, 0.0008, ...}, float[1024] db = {0, ...},
    float[10,1024] w = {0.01, -0.02, 0.015, 0.002, ...}, float[10] b = {0.1, -0.1, 0, ...}
> {
    f = Flatten(x) g = Gemm<transB = 1>(f, a, ab) h = Relu(g) i = Gemm<transB = 1>(h, c, cb) j = Relu(i)
    k = Gemm<transB = 1>(j, d, db) l = Relu(k) y = Gemm<transB = 1>(l, w, b)
}
MODEL

if [ "$("$regraft" tune net.onnx --data "$pictures" --mpi --recipe plain --epochs 1 -o one.onnx 2>&1 | grep -c 'no MPI')" != 0 ]; then
    expect 4 "without MPI --mpi says what is missing" "$regraft" tune net.onnx --data "$pictures" --mpi --recipe plain -o o.onnx
    holds "it names the packages" grep -q libopenmpi-dev err
    OMPI_COMM_WORLD_SIZE=2 expect 4 "the same under a launcher" "$regraft" tune net.onnx --data "$pictures" --recipe plain -o o.onnx
    echo "skipped: this build has no MPI ($checks checks, $failures failures)"
    exit $((failures > 0))
fi
command -v mpirun >/dev/null || { echo "skipped: mpirun is not installed (openmpi-bin)"; exit 0; }
mpi() { # PROCESSES COMMAND...
    local n=$1
    shift
    mpirun -n "$n" --allow-run-as-root --oversubscribe --bind-to none --mca btl_vader_single_copy_mechanism none "$@"
}
mpi 2 true >/dev/null 2>err </dev/null || { echo "skipped: mpirun cannot start two processes here: $(head -n 3 err | tr '\n' ' ')"; exit 0; }

losses() { sed -nE 's/.*"event":"step".*"loss":([-0-9.e+]+).*/\1/p' "$1/metrics.jsonl"; }
same_losses() { # RUN RUN: 1e-5 of each other, and as many
    paste <(losses "$1") <(losses "$2") | awk '{ n++; if (NF != 2 || $1 - $2 > 1e-5 * $2 || $2 - $1 > 1e-5 * $2) bad++ }
        END { exit !(n >= 8 && bad == 0) }'
}
plain=(--data "$pictures" --recipe plain --optimizer sgd --lr 0.05 --momentum 0.9 --batch 24 --epochs 3)
expect 0 "one process" "$regraft" tune net.onnx "${plain[@]}" -o one.onnx --run one
expect 0 "two processes" mpi 2 "$regraft" tune net.onnx "${plain[@]}" -o two.onnx --run two
holds "the same losses" same_losses one two
holds "one writer" test "$(grep -c '^wrote two.onnx' out)" = 1
holds "every event once" test "$(wc -l <one/metrics.jsonl)" = "$(($(wc -l <two/metrics.jsonl) - 1))" # and the note on processes
expect 0 "accumulation, one process" "$regraft" tune net.onnx "${plain[@]}" --accumulate 2 -o one.onnx --run one_a
expect 0 "accumulation, two processes" mpi 2 "$regraft" tune net.onnx "${plain[@]}" --accumulate 2 -o two.onnx --run two_a
holds "the same losses when accumulating" same_losses one_a two_a
expect 0 "weighed classes, one process" "$regraft" tune net.onnx "${plain[@]}" --balance -o one.onnx --run one_b
expect 0 "weighed classes, three processes" mpi 3 "$regraft" tune net.onnx "${plain[@]}" --balance -o two.onnx --run two_b
holds "the same losses where classes weigh differently" same_losses one_b two_b
wide=(--data "$pictures" --recipe plain --optimizer sgd --lr 0.01 --batch 24 --epochs 2)
expect 0 "several sums a step, one process" "$regraft" tune wide.onnx "${wide[@]}" -o one.onnx --run one_w
expect 0 "several sums a step, two processes" mpi 2 "$regraft" tune wide.onnx "${wide[@]}" -o two.onnx --run two_w
holds "the same losses from several sums" same_losses one_w two_w
frozen=("${plain[@]}" --freeze k --freeze kb)
expect 0 "features of a frozen part, one process" "$regraft" tune net.onnx "${frozen[@]}" -o one.onnx --run one_f
expect 0 "features of a frozen part, two processes" mpi 2 "$regraft" tune net.onnx "${frozen[@]}" -o two.onnx --run two_f
holds "it ran once" grep -q 'the frozen part ran once' err
holds "the same losses from features" same_losses one_f two_f
"$write_model" - means.onnx <<'MODEL' || exit 1
<ir_version: 8, opset_import: ["" : 18]>
means (float[N,1,28,28] x) => (float[N,10] y) <
    float[784,8] k = {0.01, -0.02, 0.03, 0.005, -0.015, 0.001, 0.02, ...}, int64[1] zero = {0}, float[8,10] w = {0.3, -0.2, 0.1, -0.15, 0.25, ...}
> { f = Flatten(x) a = MatMul(f, k) m = ReduceMean<keepdims = 1>(a, zero) s = Sub(a, m) y = MatMul(s, w) }
MODEL
expect 0 "samples that meet in the frozen part, two processes" mpi 2 "$regraft" tune means.onnx "${plain[@]}" --train w -o two.onnx
holds "none keeps features" grep -q "runs in every epoch: .* depends on the other samples" err
expect 0 "a limit on memory, features shared by three" mpi 3 "$regraft" tune "$tests/../examples/fashion6.onnx" --data "$pictures" --batch 24 \
    --preset 0..1 --epochs 1 --memory 500M -o two.onnx
expect 0 "a limit on memory, two processes" mpi 2 "$regraft" tune net.onnx "${plain[@]}" --memory 400M -o two.onnx --run two_m
holds "the same losses under a limit" same_losses one two_m
expect 0 "recipe auto: shared features, probe, fine-tuning" mpi 2 "$regraft" tune "$tests/../examples/fashion6.onnx" --data "$pictures" \
    --epochs 2 -o auto.onnx --run auto
holds "the probe was measured" test -s auto/probe_val.json

# a process is killed; what is there goes on to the bytes of a run that was not disturbed
long=(--data "$pictures" --recipe plain --optimizer adamw --batch 16 --epochs 60)
expect 0 "undisturbed" mpi 2 "$regraft" tune net.onnx "${long[@]}" -o whole.onnx --run whole
mpi 2 sh -c 'echo $$ >pid.$OMPI_COMM_WORLD_RANK; exec "$@"' sh "$regraft" tune net.onnx "${long[@]}" -o cut.onnx --run cut \
    >out 2>err </dev/null &
launcher=$!
written() { stat -c %i cut/checkpoint 2>/dev/null; } # every epoch puts a new file there
first=
for _ in $(seq 3000); do
    [ -n "$first" ] || first=$(written)
    [ -n "$first" ] && [ -n "$(written)" ] && [ "$(written)" != "$first" ] && break
    sleep 0.01
done
kill -9 "$(cat pid.1)" 2>/dev/null
got=0
wait $launcher || got=$?
checks=$((checks + 1))
if [ "$got" = 0 ]; then # the run was over before it could be killed
    echo "note: the run ended before its process was killed"
else
    holds "no model of a run that failed" test ! -e cut.onnx
    expect 3 "another number of processes is refused" "$regraft" tune net.onnx "${long[@]}" -o cut.onnx --resume cut
    holds "and says so" grep -q 'processes' err
fi
expect 0 "resuming" mpi 2 "$regraft" tune net.onnx "${long[@]}" -o cut.onnx --resume cut
holds "the same bytes" cmp -s whole.onnx cut.onnx

# Ctrl-C at the launcher, which ends its processes by SIGTERM, in a run that does not end by itself
mpi 2 "$regraft" tune net.onnx "${long[@]}" --epochs 100000 -o stopped.onnx --run stopped >out 2>err </dev/null &
launcher=$!
for _ in $(seq 3000); do
    [ -e stopped/checkpoint ] && break
    sleep 0.01
done
pkill -INT -P $launcher # whatever the launcher calls itself: Open MPI 5 turns into prterun
wait $launcher
# said before the training: a launcher that is being stopped need not pass on what its processes still say
holds "it says how to go on" grep -q 'goes on with: mpirun -n 2 regraft tune net.onnx .* --epochs 100000 .* --resume stopped$' err
holds "a checkpoint" test -s stopped/checkpoint
holds "no model of a run that was stopped" test ! -e stopped.onnx

expect 2 "a batch that cannot be divided" mpi 2 "$regraft" tune net.onnx --data "$pictures" --recipe plain --batch 7 -o o.onnx
holds "it says so" grep -q 'cannot be divided among 2 processes' err
holds "nothing is left behind" test ! -e o.onnx
echo "$checks checks, $failures failures"
[ $failures = 0 ]
