#!/usr/bin/env bash
# The tool from outside: exit codes, one clear line for every mistake, outputs as in tests/golden. cli.sh REGRAFT WRITE_MODEL
# UPDATE_GOLDEN=1 rewrites the golden files.
set -u
regraft=$1 write_model=$2
golden=$(cd "$(dirname "$0")" && pwd)/golden
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work" || exit 1
tests=0 failures=0
export NO_COLOR=1 TERM=dumb

bad() {
    failures=$((failures + 1))
    echo "FAIL: $*"
    sed 's/^/    out: /' out | head -n 20
    sed 's/^/    err: /' err | head -n 20
}

# run EXIT ARGUMENTS...: the tool must end with this code; errors are one line that begins with `regraft: `
run() {
    local wanted=$1 code
    shift
    tests=$((tests + 1))
    "$regraft" "$@" >out 2>err </dev/null
    code=$?
    [ $code = "$wanted" ] || bad "exit $code instead of $wanted: regraft $*"
    if [ "$wanted" -gt 1 ] && ! grep -q '^regraft: ' err; then bad "no error line: regraft $*"; fi
}

# says FILE TEXT: a line of the last run is exactly this
says() {
    tests=$((tests + 1))
    grep -qxF -- "$2" "$1" || bad "no line '$2'"
}

# like NAME: the output of the last run is golden/NAME.txt
like() {
    tests=$((tests + 1))
    if [ -n "${UPDATE_GOLDEN:-}" ]; then cp out "$golden/$1.txt"; fi
    diff -u "$golden/$1.txt" out >difference || { bad "output differs from golden/$1.txt"; cat difference; }
}

# nothing FILE: no such file, and nothing half-written beside it
nothing() {
    tests=$((tests + 1))
    [ -z "$(ls -A | grep -F -- "$1")" ] || bad "$1 or a part of it was written"
}

model() { "$write_model" - "$1" || { echo "cannot write $1"; exit 1; }; }

model net.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17], producer_name: "hand", metadata_props: ["names" : "{0: 'a'}"]>
net (float[N,3,8,8] image) => (float[N,10] scores) <
  float[4,3,3,3] "conv1.weight" = {0.1, ...}, float[4] "conv1.bias" = {0.0, 0.5, 1.0, 1.5},
  float[10,4] "fc.weight" = {0.25, ...}, float[10] "fc.bias" = {0.0, ...}> {
  ["/conv1/Conv"] c = Conv <kernel_shape = [3, 3]> (image, "conv1.weight", "conv1.bias")
  ["/Relu"] r = Relu (c)
  ["/pool/GlobalAveragePool"] p = GlobalAveragePool (r)
  ["/Flatten"] features = Flatten (p)
  ["/fc/Gemm"] scores = Gemm <transB = 1> (features, "fc.weight", "fc.bias")
}
TEXT
model two.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
two (float[N,4] x) => (float[N,2] a, float[N,3] b) <float[2,4] v = {...}, float[3,4] w = {...}> {
  h = Relu (x) [ga] a = Gemm <transB = 1> (h, v) [gb] b = Gemm <transB = 1> (h, w)
}
TEXT
model foreign.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17, "my.domain" : 1]>
g (float[N,4] x) => (float[N,2] y) <float[4,4] v = {0.5, ...}, float[2,4] w = {0.5, ...}> {
  h = MatMul (x, v) ["/odd"] k = my.domain.Odd <a = 1> (h) y = Gemm <transB = 1> (k, w)
}
TEXT
model stranger.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17, "my.domain" : 1]>
g (float[N,20] x) => (float[N,20] z) { h = Relu (x) ["/odd"] z = my.domain.Odd <a = 1> (h) }
TEXT
model encoder.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y) <float[4] v = {1.0, ...}> { [ln] y = LayerNormalization (x, v) }
TEXT

# ---- the frame
run 0 --version
run 0 help
run 0 --help
run 2
run 2 inspekt net.onnx
says err "regraft: unknown verb 'inspekt' (did you mean 'inspect'?)"
run 2 inspect net.onnx --jsn
says err "regraft: inspect: unknown option '--jsn' (did you mean '--json'?)"
run 2 inspect
says err "regraft: inspect: MODEL... missing; usage: regraft inspect MODEL..."
for verb in inspect heads cut attach freeze tune eval predict features run diff check ops; do
    run 0 $verb --help
    says out "Examples:"
    tests=$((tests + 1))
    [ "$(sed -n '/^Examples:/,/^$/p' out | grep -c "^  regraft ")" -ge 2 ] || bad "help of $verb has less than two examples"
    run 0 help $verb
done
tests=$((tests + 1))
"$regraft" ops 2>err | head -n 1 >out
[ "${PIPESTATUS[0]}" = 0 ] || bad "a closed pipe is no error"

# ---- reading verbs
run 0 inspect net.onnx
like inspect
run 0 inspect net.onnx --parameters
like inspect_parameters
run 0 inspect net.onnx --json --parameters
like inspect_json
run 0 heads net.onnx
like heads
run 0 heads net.onnx --json
like heads_json
run 0 check net.onnx
like check
run 0 check net.onnx --train head --json
like check_json
run 5 heads two.onnx
says err "regraft: two.onnx: several heads, choose by name or by output; candidates are 1: Gemm 'ga' [4 -> 2]; 2: Gemm 'gb' [4 -> 3]"
run 5 heads encoder.onnx
says err "regraft: encoder.onnx: no head found: behind 'y' the walk ends at LayerNormalization 'ln'; name the tensor to cut at"
run 4 check foreign.onnx
says err "regraft: foreign.onnx: Odd '/odd': operator my.domain.Odd (opset 1) is not known"
run 4 run stranger.onnx -i "$golden/../data/task_a.npz"
said=$(grep -c 'is not known' err)
[ "$said" = 1 ] || bad "an unknown operator is said $said times"
says err "regraft: Odd '/odd': operator my.domain.Odd (opset 1) is not known"
run 0 ops --filter Gemm
run 2 ops --filter Nonsense
for folder in "" "--conformance $golden/../conformance"; do
    run 0 ops --markdown $folder # shellcheck disable=SC2086
    tests=$((tests + 1))
    cmp -s out "$golden/../../docs/operators.md" || bad "docs/operators.md is stale: regraft ops --markdown > docs/operators.md"
done
run 2 check net.onnx --train 'fc.wieght'
says err "regraft: net.onnx: pattern 'fc.wieght' matches no parameter (did you mean 'fc.weight'?)"

# ---- hazard 32: preprocessing inside the model is said in whatever form it comes, and only then
model scaled.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
g (uint8[N,3,8,8] picture) => (float[N,2] y) <float[1,3,1,1] mean = {0.4, 0.5, 0.6}, float n = {255.0}, float[2,3] w = {0.5, ...}> {
  f = Cast <to = 1> (picture) u = Div (f, n) ["/sub"] c = Sub (u, mean) p = GlobalAveragePool (c) v = Flatten (p)
  y = Gemm <transB = 1> (v, w)
}
TEXT
run 0 check scaled.onnx
says out "warning W09 preprocessing-inside Div 'u': the model scales its input 'picture' itself: give it pictures as they are (0 to 255 or 0 to 1), not normalised"

scaling() { # NODES WARNINGS: that make v [N,3,1,1] of picture [N,3,8,8]
    model scaled.onnx <<TEXT
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] picture) => (float[N,2] y) <float[1,3,1,1] mean = {0.4, 0.5, 0.6}, float[2,3] w = {0.5, ...}> {
  $1 p = GlobalAveragePool (c) v = Flatten (p) y = Gemm <transB = 1> (v, w)
}
TEXT
    run 0 check scaled.onnx
    tests=$((tests + 1))
    [ "$(grep -c 'W09 preprocessing-inside' out)" = "$2" ] || bad "hazard 32: $2 warnings of preprocessing: $1"
}
scaling 'c = Sub (picture, mean)' 1
scaling 'n = Constant <value_float = 127.5> () m = Constant <value = float {-1.0}> () f = Div (picture, n) c = Add (m, f)' 1
scaling 't = Transpose <perm = [0, 2, 3, 1]> (picture) s = Constant <value = float[3] {2.0, 3.0, 4.0}> () d = Mul (t, s)
  c = Transpose <perm = [0, 3, 1, 2]> (d)' 1
scaling 'q = Constant <value_floats = [0.5, 0.25, 0.5]> () t = Transpose <perm = [0, 2, 3, 1]> (picture) d = Add (t, q)
  c = Transpose <perm = [0, 3, 1, 2]> (d)' 1
scaling 'c = Relu (picture)' 0
scaling 'r = Relu (picture) c = Sub (r, mean)' 0 # features, no picture

# ---- every trap of docs/hazards.md has a test that bears its number
for number in $(grep -oE '^\| [0-9]+(, [0-9]+)? \|' "$golden/../../docs/hazards.md" | tr -d '|,'); do
    tests=$((tests + 1))
    grep -qE "hazard[_ ]([0-9]+_and_)?$(printf %02d "$number")[^0-9]" "$golden"/../test_*.c "$golden/../cli.sh" ||
        bad "no test names hazard $number"
done

# ---- every option that the documents name is in some verb's help, and no help shows a number that stands for "not set"
for verb in $("$regraft" help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do "$regraft" "$verb" --help; done >helps 2>err
tests=$((tests + 1))
grep -q -- '(default -1)' helps && bad "a help tells of a default of -1"
documents=$golden/../../docs
for option in $(cd "$documents" && grep -ohE -- '--[a-z][a-z0-9-]+' verbs.md formats.md surgery.md check-codes.md decisions.md hazards.md | sort -u); do
    tests=$((tests + 1))
    grep -qE -- "$option( |,|\$)" helps || bad "the documents name $option, no help does"
done

# ---- thousands of nodes and inputs: check takes less than a second of the processor
large() { # NAME NODES
    local i last=x
    {
        echo '<ir_version: 3, opset_import: ["" : 17]> g (float[N,4] x'
        for ((i = 0; i < $2; i++)); do echo ", float[4,4] w$i"; done
        echo ') => (float[N,4] y) <'
        for ((i = 0; i < $2; i++)); do echo "$([ $i = 0 ] || echo ,) float[4,4] w$i = {0.5, ...}"; done
        echo '> {'
        for ((i = 0; i < $2; i++)); do echo "h$i = MatMul ($last, w$i)"; last=h$i; done
        echo "y = Relu ($last) }"
    } | "$write_model" - "$1"
}
large large.onnx 2000
tests=$((tests + 1))
TIMEFORMAT=%U
seconds=$( { time "$regraft" check large.onnx >out 2>err; } 2>&1)
awk -v s="$seconds" 'BEGIN { exit !(s < 1) }' || bad "check of 2,000 nodes took $seconds s of the processor"
tests=$((tests + 1))
grep -q '^large.onnx: runs' out || bad "check of 2,000 nodes"

# ---- a member of a list left out, shapes beyond any memory
for node in 'Concat <axis = 0> (x, )' 'Einsum <equation = "ij,ij->ij"> (x, )' 'Einsum <equation = "ij,ij->ij"> (, x)'; do
    model odd.onnx <<<"<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,2] x) => (float[A,B] y) { y = $node }"
    run 4 check odd.onnx
    grep -q 'is missing' err || bad "a left out member is named: $node"
done
model huge.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
g (float[9000000000,2] x) => (float[A,B] y) { y = Relu (x) }
TEXT
run 4 check huge.onnx
model huge.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,2000000,1] x, float[2000000,1,20000000] z) => (float[A,B,C] y) { y = Add (x, z) }
TEXT
run 4 check huge.onnx
grep -q 'beyond any memory' err || bad "a shape beyond any memory"

# ---- bad files
for verb in inspect heads check; do
    run 3 $verb missing.onnx
    says err "regraft: missing.onnx: No such file or directory"
    run 3 $verb .
done
head -c 300 net.onnx >short.onnx
run 3 inspect short.onnx
: >empty.onnx
run 3 inspect empty.onnx
head -c 5000 /dev/urandom >noise.onnx
run 3 inspect noise.onnx
run 3 cut short.onnx -o cut.onnx
nothing cut.onnx
run 3 diff net.onnx missing.onnx

# ---- cut and attach
run 0 cut net.onnx --dry-run
like cut_dry_run
run 0 cut net.onnx -o trunk.onnx
run 1 diff net.onnx trunk.onnx
like diff_cut
run 0 attach trunk.onnx --labels cat,dog --seed 7 -o start.onnx
run 0 attach net.onnx --labels cat,dog --seed 7 -o direct.onnx
run 0 diff start.onnx direct.onnx
run 1 diff net.onnx start.onnx --ignore metadata
like diff_attach
run 0 attach trunk.onnx --task colour:8 --task shape:3 -o tasks.onnx
run 5 heads tasks.onnx
run 0 cut tasks.onnx --head-of shape -o one.onnx
run 2 cut net.onnx
says err "regraft: cut: -o FILE is needed (or --dry-run)"
run 2 cut net.onnx -o net.onnx
says err "regraft: net.onnx: the output would overwrite the input; choose another name"
ln -s net.onnx link.onnx
run 2 cut net.onnx -o link.onnx
run 2 cut net.onnx --at feature -o cut.onnx
says err "regraft: net.onnx: no tensor is called 'feature' (did you mean 'features'?)"
run 2 cut net.onnx --head /fc/Gem -o cut.onnx
says err "regraft: net.onnx: no head is called '/fc/Gem' (did you mean '/fc/Gemm'?)"
run 5 cut two.onnx -o cut.onnx
run 5 attach two.onnx --classes 4 -o cut.onnx
run 2 attach net.onnx -o cut.onnx
run 2 attach net.onnx --classes 0 -o cut.onnx
run 2 attach net.onnx --classes 3 --labels a,b -o cut.onnx
run 2 attach net.onnx --labels a,,b -o cut.onnx
nothing cut.onnx
run 0 cut foreign.onnx -o foreign_trunk.onnx
run 1 diff foreign.onnx foreign_trunk.onnx
mkdir folder
run 7 cut net.onnx -o folder
run 7 cut net.onnx -o no/such/folder/cut.onnx
run 7 cut net.onnx -o /proc/cut.onnx
tests=$((tests + 1))
model wide.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,100] x) => (float[N,10] y) <float[100,100] v = {0.5, ...}, float[100,10] w = {0.5, ...}> {
  h = MatMul (x, v) y = MatMul (h, w)
}
TEXT
(
    ulimit -f 8 # 8 blocks of 1 KB: as good as a full disk
    "$regraft" cut wide.onnx -o full.onnx >out 2>err
    [ $? = 7 ]
) || bad "a full disk is exit 7"
nothing full.onnx
if [ "$(id -u)" != 0 ]; then
    mkdir locked && chmod a-w locked
    run 7 cut net.onnx -o locked/cut.onnx
fi
if [ -w /dev/full ]; then
    tests=$((tests + 1))
    "$regraft" inspect net.onnx >/dev/full 2>err
    [ $? = 7 ] || bad "a full disk behind standard output is exit 7"
fi

# ---- freeze
run 0 freeze net.onnx 'conv1*' -o frozen.onnx
run 0 inspect frozen.onnx
says out "  frozen     112 in 2 (marked)"
run 1 diff net.onnx frozen.onnx
says out "frozen: 2 of 2 marked parameters are identical byte for byte"
run 0 freeze net.onnx --train head --dry-run
like freeze_dry_run
run 0 freeze frozen.onnx --none -o thawed.onnx
run 0 diff net.onnx thawed.onnx
run 2 freeze net.onnx 'layer9*' -o cut.onnx
run 2 freeze net.onnx -o cut.onnx
run 2 freeze net.onnx 'conv1*' --train head -o cut.onnx
nothing cut.onnx

# ---- diff
run 0 diff net.onnx net.onnx
run 2 diff net.onnx
run 2 diff net.onnx net.onnx --ignore nonsense
run 1 diff net.onnx two.onnx --json

# ---- real models: the head of each, and a new one in its place
# cases: model, features, width, classes
shared_cases='
models/mbv2-w0.35_imagenet.onnx /Flatten_output_0 112 1000
models/proxyless-w0.3_imagenet.onnx /Flatten_output_0 96 1000
models/resnet20_cifar10.onnx /Reshape_output_0 64 10
models/resnet20_cifar10_train.onnx /Reshape_output_0 64 10
parity/bert-ts/model.onnx /m/bert/pooler/activation/Tanh_output_0 48 3
parity/bert/model.onnx tanh 48 3
parity/convnext/model.onnx view 48 10
parity/densenet-live/model.onnx /Flatten_output_0 36 10
parity/efficientnet-live/model.onnx /classifier/classifier.0/Dropout_output_0 64 10
parity/gpt2-lm/model.onnx view_27 48 150
parity/gru-bi/model.onnx /ReduceMean_output_0 40 3
parity/lenet/model.onnx /Relu_1_output_0 84 10
parity/lstm-2layer-dynamo/model.onnx mean 20 3
parity/lstm-bi/model.onnx /ReduceMean_output_0 40 3
parity/mixed-convs/model.onnx cat 24 5
parity/mobilenetv2-folded/model.onnx view 1280 10
parity/mobilenetv2-live/model.onnx /classifier/classifier.0/Dropout_output_0 1280 10
parity/mobilenetv3-live/model.onnx /classifier/classifier.2/Dropout_output_0 64 10
parity/multilabel/model.onnx mish 40 5
parity/regression/model.onnx mish 40 2
parity/resnet-folded-ts/model.onnx /Flatten_output_0 64 10
parity/resnet-folded/model.onnx view 64 10
parity/resnet-live-bn/model.onnx /Flatten_output_0 64 10
parity/rnn/model.onnx /ReduceMean_output_0 20 3
parity/swin/model.onnx view_26 32 10
parity/unet/model.onnx /c1/c1.5/Relu_output_0 8 3
parity/vit-ts/model.onnx /Gather_4_output_0 48 10
parity/vit/model.onnx select_6 48 10'
if [ -d "${REGRAFT_SHARED:-/nowhere}/models" ]; then
    while read -r path features width classes; do
        [ -n "$path" ] || continue
        real=$REGRAFT_SHARED/$path
        run 0 heads "$real" --json
        tests=$((tests + 1))
        grep -qF "\"features\": \"$features\"" out && grep -qF "\"width\": $width, \"classes\": $classes," out ||
            bad "head of $path: not $features [$width -> $classes]"
        run 0 attach "$real" --classes 4 -o real.onnx
        run 1 diff "$real" real.onnx
        run 0 cut "$real" -o real_trunk.onnx
        run 0 check real.onnx
    done <<<"$shared_cases"
else
    echo "skipped: real models (REGRAFT_SHARED names no folder)"
fi

# ---- a gradient is that of the results it stands beside: summed over its batch, live BatchNorm gives a constant
model live.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
live (float[N,20] x) => (float[N,1] score) <float[20] s = {1, ...}, float[20] m = {0.5, ...}, int64[1] a = {1}> {
  n, moved_m, moved_v = BatchNormalization <training_mode = 1> (x, s, m, m, s) score = ReduceSum (n, a)
}
TEXT
run 0 run live.onnx -i "$golden/../data/task_a.npz" --gradient x
tests=$((tests + 1))
awk '$1 == "x.gradient" { found = $3 > -1e-4 && $5 < 1e-4 } END { exit !found }' out || bad "the gradient uses running statistics"

# ---- an output of which the file says nothing may be what a loss reads
model untold.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
untold (float[N,20] x) => (scores) <float[20,4] w = {0.01, ...}> { scores = MatMul (x, w) }
TEXT
run 0 tune untold.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --epochs 1 -o told.onnx

# ---- a batch that cannot be another: named by `check`, no harm to the run that has it, refused to any other
model joined.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
joined (float[128,20] x) => (float[128,4] y) <float[128,2] kept = {0.5, 0.25, ...}, float[22,4] w = {0.01, ...}> {
  ["/join"] j = Concat <axis = 1> (x, kept)
  y = MatMul (j, w)
}
TEXT
run 0 check joined.onnx --batch 4
tests=$((tests + 1))
grep -q "W07 baked-batch .*Concat '/join': only a batch of 128 fits" out || bad "the node that holds the batch is not named"
plain=(--data "$golden/../data/task_a.npz" --recipe plain --keep-head --train w --epochs 1)
run 0 tune joined.onnx "${plain[@]}" --batch 128 -o told.onnx
run 4 tune joined.onnx "${plain[@]}" --batch 32 -o none.onnx
nothing none.onnx

# A parameter that a step function cuts off from the loss: `check` and `tune` name it.
model rounded.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
rounded (float[N,20] x) => (float[N,4] y) <float[20,8] cut_off = {0.01, ...}, float[8,4] w = {0.01, ...}> {
  h = MatMul (x, cut_off)
  r = Round (h)
  y = MatMul (r, w)
}
TEXT
run 0 check rounded.onnx --train all
says out "warning W11 unreached            parameters that do not reach an output: 1 ('cut_off'); they stay as they are"
run 0 tune rounded.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --train all --epochs 1 -o told.onnx
says err "warning: the loss does not depend on 1 of the parameters that may be trained ('cut_off'): they stay as they are"
run 0 tune rounded.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --train w --epochs 1 -o told.onnx
tests=$((tests + 1))
! grep -q 'does not depend' err || bad "a frozen parameter is said to be cut off"
run 4 check rounded.onnx --train cut_off
run 4 tune rounded.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --train cut_off --epochs 1 -o none.onnx
nothing none.onnx

# A step function has the gradient 0; what an output does not depend on has none.
run 0 run rounded.onnx -i "$golden/../data/task_a.npz" --gradient x
tests=$((tests + 1))
awk '$1 == "x.gradient" { found = $3 == 0 && $5 == 0 } END { exit !found }' out || bad "Round: the gradient is not zero"
model apart.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
apart (float[N,20] x) => (float[N,20] y) {
  s = Shape (x)
  y = ConstantOfShape (s)
}
TEXT
run 2 run apart.onnx -i "$golden/../data/task_a.npz" --gradient x
says err "regraft: --gradient: output 'y' does not depend on input 'x'"

# A shape that is an input is known when a gradient is asked for beside it.
model maker.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
maker (float[N,20] x) => (float[N,20] z, int64[2] s) <int64[2] shape = {-1, 5}> {
  z = Abs (x)
  s = Identity (shape)
}
TEXT
model reshaped.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
reshaped (float[N,20] z, int64[2] s) => (float[M,5] y) <float two = {2}> {
  r = Reshape (z, s)
  y = Mul (r, two)
}
TEXT
run 0 run maker.onnx -i "$golden/../data/task_a.npz" -o both.npz
run 0 run reshaped.onnx -i both.npz --gradient z
tests=$((tests + 1))
awk '$1 == "z.gradient" { found = $3 == 0 && $5 == 2 } END { exit !found }' out || bad "a shape among the inputs: another gradient"

# What shape a loop or NonZero gives depends on data: named, before and while training.
model looped.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
looped (float[N,20] x) => (float[N,4] y) <float[20,4] w = {0.01, ...}, bool go = {1}, int64 times = {3}> {
  h = MatMul (x, w)
  n = NonZero (h)
  s = Size (n)
  y, all = Loop (s, go, h) <body = b (int64 i, bool c, float[N,4] a) => (bool c2, float[N,4] a2, float[N,4] o) {
    c2 = Identity (c)
    a2 = Relu (a)
    o = Identity (a2)
  }>
}
TEXT
run 4 check looped.onnx --train all
grep -q "E07 data-dependent-shape NonZero 'n': " out || bad "check does not say E07 of NonZero"
run 4 tune looped.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --epochs 1 -o none.onnx
nothing none.onnx

# Numbers of a kind that a row cannot compute are named before anything runs.
model complex.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
complex (complex64[N,4] x) => (complex64[N,4] y) { h = Identity (x) ["/neg"] y = Neg (h) }
TEXT
run 4 check complex.onnx --run-only
grep -q "E03 cannot-run  *Neg '/neg': not defined for complex64" out || bad "check does not say E03 of complex numbers"

# Noise of a layer's shape hinders no gradient (a variational encoder).
model noise.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
noise (float[N,20] x) => (float[N,4] y) <float[20,4] w = {0.3, -0.2, 0.1, ...}, float[20,4] v = {0.1, -0.1, ...}> {
  mean = MatMul (x, w)
  deviation = MatMul (x, v)
  drawn = RandomNormalLike (deviation)
  scaled = Mul (drawn, deviation)
  y = Add (mean, scaled)
}
TEXT
run 0 check noise.onnx
grep -q "trains 160 numbers in 2 of 2 parameters" out || bad "check does not train through noise"

# A condition on the whole batch: what was written is compared batch by batch as it was trained.
model branched.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
branched (float[N,20] x) => (float[N,4] y) <float[20,8] w = {0.3, -0.2, 0.1, -0.25, 0.15, ...}, float[8,4] a = {0.3, -0.1, ...},
  float[8,4] b = {-0.2, 0.5, ...}, float zero = {0}> {
  h = MatMul (x, w)
  s = ReduceSum <keepdims = 0> (h)
  c = Greater (s, zero)
  y = If (c) <then_branch = t () => (float[N,4] p) { p = MatMul (h, a) }, else_branch = e () => (float[N,4] q) { q = MatMul (h, b) }>
}
TEXT
run 0 tune branched.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --batch 1 --epochs 1 -o told.onnx

# A constant of 6 samples in a file whose batch is open: one sample fits by broadcasting, and is not the batch of the export.
model masked.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
masked (float[N,20] x) => (float[N,4] y) <float[6,20] mask = {1.0, ...}, float[20,4] w = {0.01, ...}> {
  m = Mul (x, mask)
  y = MatMul (m, w)
}
TEXT
for batch in 6 4; do
    run 0 tune masked.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --batch $batch --epochs 1 -o told.onnx
    grep -q 'baked a batch of 6' err || bad "the batch of the export is not told"
done

# A batch of 1 in a Reshape: at 2 the shapes fit as well, but samples come out as one.
model single.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
single (float[N,20] x) => (float[N,4] y) <float[4,4] w = {0.1, -0.2, 0.3, ...}, int64[3] shape = {1, -1, 4}> {
  r = Reshape (x, shape)
  h = MatMul (r, w)
  y = ReduceMean <axes = [1], keepdims = 0> (h)
}
TEXT
run 0 tune single.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --batch 8 --epochs 1 -o told.onnx
grep -q 'baked a batch of 1 ' err || bad "a batch of 1 is taken for another"

# A target that is no class is refused, by Dice as by cross-entropy, in training as in validation.
model few.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
few (float[N,20] x) => (float[N,3] y) <float[20,3] w = {0.01, ...}> {
  y = MatMul (x, w)
}
TEXT
for loss in dice softmax_ce; do
    run 3 tune few.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --loss $loss --epochs 1 -o none.onnx
    grep -q "target 3 at [0-9]* is outside \[0, 3)" err || bad "$loss: no word about the target"
    nothing none.onnx
    run 0 tune few.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --loss $loss --ignore-index 3 --epochs 1 -o told.onnx
done

# A trained BatchNorm in training form on its running statistics: these are not moved, and differ from a live one's.
model norm.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
norm (float[N,20] x) => (float[N,4] y) <float[20,8] w = {0.01, ...}, float[8] scale = {1.0, ...}, float[8] shift = {0.5, ...},
  float[8] mean = {0.25, ...}, float[8] variance = {2.0, ...}, float[8,4] v = {0.1, -0.1, ...}> {
  h = MatMul (x, w)
  n, m1, v1 = BatchNormalization <training_mode = 1> (h, scale, shift, mean, variance)
  y = MatMul (n, v)
}
TEXT
for how in live running; do
    run 0 tune norm.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --batchnorm $how --epochs 1 -o $how.onnx
    "$regraft" diff norm.onnx $how.onnx >out 2>err
    tests=$((tests + 1))
    [ "$(grep -c 'initializer mean\|initializer variance' out)" = $([ $how = live ] && echo 2 || echo 0) ] ||
        bad "--batchnorm $how: which statistics were moved?"
done

# scikit-learn's classifiers give dictionaries for Python: here, the scores they are made of.
model maps.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
maps (float[N,20] x) => (int64[N] label, p) <float[4,20] w = {0.1, -0.2, 0.3, 0.05, ...}, float[4] b = {0, 0.1, ...}> {
  s = Gemm <transB = 1> (x, w, b) q = Softmax <axis = 1> (s) label = ArgMax <axis = 1, keepdims = 0> (q)
  p = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2, 3]> (q)
}
TEXT
run 0 check maps.onnx
run 0 run maps.onnx -i "$golden/../data/task_a.npz" -o maps.npz
run 0 tune maps.onnx --data "$golden/../data/task_a.npz" --recipe plain --keep-head --epochs 1 -o kept.onnx
run 0 inspect kept.onnx
grep -q 'ZipMap 1' out || bad "the file keeps its ZipMap"
run 0 tune maps.onnx --data "$golden/../data/task_a.npz" --epochs 1 -o fresh.onnx
grep -q '^probe' out || bad "a new head behind a ZipMap is probed"

# A model that takes bytes gets pictures as they are; no other preprocessing fits.
model bytes.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
bytes (uint8[N,28,28,1] x) => (float[N,4] y) <float[28,4] w = {0.01, ...}, float[4] b = {0.0, 0.5, 1.0, 1.5}, float tall = {255.0}> {
  f = Cast <to = 1> (x)
  s = Div (f, tall)
  m = ReduceMean <axes = [2, 3], keepdims = 0> (s)
  y = Gemm (m, w, b)
}
TEXT
pictures=$golden/../data/fashion_small.npz
run 0 tune bytes.onnx --data "$pictures" --epochs 1 -o byte.onnx
run 0 eval byte.onnx --data "$pictures"
run 0 predict byte.onnx --data "$pictures"
run 0 eval bytes.onnx --data "$pictures" --preset 0..255-bgr --part train
run 2 tune bytes.onnx --data "$pictures" --preset imagenet -o none.onnx
grep -q "takes uint8" err || bad "no word about what the input takes"
nothing none.onnx

echo "$tests checks, $failures failures"
[ $failures = 0 ]
