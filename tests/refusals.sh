#!/usr/bin/env bash
# What the tool refuses: one row a mistake, with its exit code, one line that begins with `regraft: `, and nothing written anywhere.
# refusals.sh REGRAFT WRITE_MODEL
set -u
regraft=$1 write_model=$2
tests=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
mounted=
clean_up() {
    [ -z "$mounted" ] || umount "$work/full" "$work/readonly" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT
cd "$work" || exit 1
checks=0 failures=0
export NO_COLOR=1 TERM=dumb OMP_NUM_THREADS=2

bad() {
    failures=$((failures + 1))
    echo "FAIL: $*"
    sed 's/^/    err: /' err | tail -n 4
}

everything() {
    find . -type d -printf '%p\n' -o ! -name err ! -name out ! -name before ! -name after -printf '%p %s %T@\n' | sort
}

# refuses EXIT PART ARGUMENTS...: the last line says PART; no file appears, goes or changes
refuses() {
    local wanted=$1 part=$2 code
    shift 2
    checks=$((checks + 1))
    everything >before
    timeout 120 "$regraft" "$@" >out 2>err </dev/null
    code=$?
    everything >after
    [ $code = "$wanted" ] || bad "exit $code instead of $wanted: regraft $*"
    [ "$(grep -c '^regraft: ' err)" -ge 1 ] && tail -n 1 err | grep -q '^regraft: ' || bad "no error line at the end: regraft $*"
    tail -n 1 err | grep -qF -- "$part" || bad "'$part' is not said: regraft $*"
    cmp -s before after || { bad "something was written: regraft $*"; diff before after; }
}

model() { "$write_model" - "$1" || { echo "cannot write $1"; exit 1; }; }

# ---- a model, pictures, and what is wrong with others
model net.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,16,16] image) => (float[N,10] scores) <
  float[4,3,3,3] w = {0.1, ...}, float[10,4] v = {0.25, ...}, float[10] b = {0.0, ...}> {
  c = Conv <kernel_shape = [3, 3]> (image, w) r = Relu (c) p = GlobalAveragePool (r) f = Flatten (p)
  ["/fc/Gemm"] scores = Gemm <transB = 1> (f, v, b)
}
TEXT
model four.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,4,16,16] image) => (float[N,10] scores) <float[4,4,3,3] w = {0.1, ...}, float[10,4] v = {0.25, ...}> {
  c = Conv <kernel_shape = [3, 3]> (image, w) p = GlobalAveragePool (c) f = Flatten (p) scores = Gemm <transB = 1> (f, v)
}
TEXT
model two.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,16,16] image) => (float[N,2] a, float[N,3] b) <float[2,3] v = {0.5, ...}, float[3,3] w = {0.5, ...}> {
  p = GlobalAveragePool (image) h = Flatten (p) [ga] a = Gemm <transB = 1> (h, v) [gb] b = Gemm <transB = 1> (h, w)
}
TEXT
model foreign.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17, "my.domain" : 1]>
net (float[N,3,16,16] image) => (float[N,2] y) <float[4,3,3,3] w = {0.1, ...}, float[2,4] v = {0.5, ...}> {
  c = Conv <kernel_shape = [3, 3]> (image, w) ["/odd"] k = my.domain.Odd <a = 1> (c) p = GlobalAveragePool (k) f = Flatten (p)
  y = Gemm <transB = 1> (f, v)
}
TEXT
model cycle.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,2] x) => (float[N,2] b) { a = Add (x, b) b = Relu (a) }
TEXT
head -c 150 net.onnx >short.onnx
put() { # FOLDER FIXTURE COUNT
    mkdir -p "$1"
    for ((i = 0; i < $3; i++)); do cp "$tests/data/$2" "$1/$i.${2##*.}"; done
}
put good/train/a rgb.jpg 4 && put good/train/b grey.jpg 4 && put good/val/a rgb.jpg 2 && put good/val/b grey.jpg 2
put empty/train/a rgb.jpg 4 && mkdir -p empty/train/b
put one/train/a rgb.jpg 4
put broken/train/a rgb.jpg 4 && put broken/train/b grey.jpg 4 && cp "$tests/data/cut.jpg" broken/train/b/9.jpg
mkdir -p nothing
: >file
ln -s net.onnx link.onnx
ln net.onnx hard.onnx
mkdir sub

# ---- the file
for verb in inspect check heads; do
    refuses 3 'missing.onnx: No such file or directory' $verb missing.onnx
    refuses 3 'short.onnx' $verb short.onnx
    refuses 3 'cycle' $verb cycle.onnx
done
for verb in cut "attach --classes 3" "freeze --train head" "tune --data good"; do
    refuses 3 'missing.onnx: No such file or directory' $verb missing.onnx -o out.onnx
    refuses 3 'short.onnx' $verb short.onnx -o out.onnx
    refuses 3 'cycle' $verb cycle.onnx -o out.onnx
done
for verb in eval predict; do refuses 3 'missing.onnx' $verb missing.onnx --data good; done
refuses 3 'missing.onnx' features missing.onnx --data good -o out.npz
refuses 3 'missing.onnx' run missing.onnx --input x.npz --output out.npz
refuses 3 'missing.npz' run net.onnx --input missing.npz --output out.npz
refuses 3 'missing.onnx' diff net.onnx missing.onnx

# ---- the model
refuses 4 "Odd '/odd': operator my.domain.Odd" tune foreign.onnx --data good -o out.onnx
refuses 4 "Odd '/odd': operator my.domain.Odd" tune foreign.onnx --data good -o out.onnx --recipe plain --keep-head
refuses 4 "Odd '/odd'" check foreign.onnx
refuses 5 'several heads' tune two.onnx --data good -o out.onnx
refuses 5 'several heads' cut two.onnx -o out.onnx
refuses 5 'several heads' attach two.onnx --classes 3 -o out.onnx
refuses 5 'several heads' features two.onnx --data good -o out.npz
refuses 3 'has 4 channels' tune four.onnx --data good -o out.onnx
refuses 3 'has 4 channels' predict four.onnx --data good/val/a

# ---- the data
refuses 3 'the label folder holds no JPEG or PNG pictures' tune net.onnx --data empty -o out.onnx
refuses 3 'at least two are needed' tune net.onnx --data one -o out.onnx
refuses 3 'broken/train/b/9.jpg' tune net.onnx --data broken -o out.onnx
refuses 3 'broken/train/b/9.jpg' tune net.onnx --data broken --recipe plain --keep-head -o out.onnx
refuses 3 'no label folders' tune net.onnx --data nothing -o out.onnx
refuses 3 'nowhere' tune net.onnx --data nowhere -o out.onnx
refuses 2 'is none of' tune net.onnx --data good --loss softmax_cee -o out.onnx

# ---- the output: never the input, under whatever name
for name in net.onnx ./net.onnx sub/../net.onnx link.onnx hard.onnx "$work/net.onnx"; do
    refuses 2 'output would overwrite the input' cut net.onnx -o "$name"
    refuses 2 'output would overwrite the input' tune net.onnx --data good -o "$name"
    refuses 2 'is an input' run net.onnx --input net.onnx --output "$name"
    refuses 2 'output would overwrite the input' features net.onnx --data good -o "$name"
done
for place in file/out.onnx no/such/out.onnx sub /proc/out.onnx; do
    refuses 7 "${place%/out.onnx}" cut net.onnx -o $place
    refuses 7 "${place%/out.onnx}" tune net.onnx --data good -o $place
done

# ---- a full disk and a read-only folder: real ones where we may mount, else a limit on file size and a folder without permission
model wide.onnx <<'TEXT'
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,16,16] image) => (float[N,10] y) <float[256,768] w = {0.001, ...}, float[10,256] v = {0.25, ...}> {
  f = Flatten (image) h = Gemm <transB = 1> (f, w) y = Gemm <transB = 1> (h, v)
}
TEXT
mkdir full readonly
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=128k none full 2>/dev/null; then
    mounted=yes
    mount -t tmpfs -o ro none readonly
    refuses 7 'No space left on device' cut wide.onnx -o full/out.onnx
    refuses 7 'No space left on device' attach wide.onnx --classes 3 -o full/out.onnx
    refuses 7 'full/out.onnx' tune wide.onnx --data good -o full/out.onnx --epochs 1
    refuses 7 'No space left on device' tune wide.onnx --data good -o full/out.onnx --train head
    refuses 7 'Read-only file system' cut net.onnx -o readonly/out.onnx
    refuses 7 'Read-only file system' tune net.onnx --data good -o readonly/out.onnx
    refuses 7 'Read-only file system' features net.onnx --data good -o readonly/out.npz
else
    echo "no right to mount: the full disk is a limit on file size"
    ulimit -f 64
    trap '' XFSZ
    refuses 7 'out.onnx' cut wide.onnx -o full/out.onnx
    refuses 7 'out.onnx' tune wide.onnx --data good -o full/out.onnx --train head
    if [ "$(id -u)" != 0 ]; then
        chmod a-w readonly
        refuses 7 'Permission denied' cut net.onnx -o readonly/out.onnx
        refuses 7 'Permission denied' tune net.onnx --data good -o readonly/out.onnx
        chmod u+w readonly
    fi
fi

echo "$checks refusals, $failures failures"
[ $failures = 0 ]
