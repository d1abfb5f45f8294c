#!/usr/bin/env bash
# The whole test suite, set-up included: scripts/test.sh [--full]
#
# Without --full the long suites run a sample (under 15 minutes on two cores); with it they run everything, under the sanitizers and with
# oneDNN 3.x, too. Stages, each named as it begins: packages, the include
# direction, release build and all tests, a build with clang, address and undefined-behaviour sanitizers, oneDNN 3.x,
# line coverage. What cannot run here is skipped with its reason. Ends with `N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
say() { printf '==> %s (after %d:%02d)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }
full=0
for flag in "$@"; do
    case $flag in
    --full) full=1 ;;
    *) echo "usage: scripts/test.sh [--full]" >&2; exit 2 ;;
    esac
done
slow_size=few # of the long suites where sanitizers or counters make everything slow
[ $full = 0 ] || { slow_size=all; export REGRAFT_TEST_SIZE=all; }
# What the sanitizers and the second oneDNN leave out. MPI's own leaks and a suite that compares times are not for sanitizers.
sanitized=(-LE 'slow|long') second=(-L runtime) second_target=(--target regraft runtime_tests)
[ $full = 0 ] || sanitized=(-E '^(test_scale|mpi|agreement)$') second=() second_target=()
jobs=$(nproc)
export OMP_WAIT_POLICY=passive # tests run side by side: a thread that waits must not spin
passed=0 failed=0
mkdir -p build
log=build/test.log
: >"$log"

# run_tests DIR [ctest arguments]: counts, and shows what failed
run_tests() {
    local folder=$1 report=$1.ctest.log line total bad status=0
    shift
    ctest --test-dir "$folder" --output-on-failure -j "$jobs" "$@" >"$report" 2>&1 || status=$?
    cat "$report" >>"$log"
    line=$(grep -E '[0-9]+% tests passed' "$report" || true)
    total=$(sed -nE 's/.* out of ([0-9]+).*/\1/p' <<<"$line")
    bad=$(sed -nE 's/.*, ([0-9]+) tests failed.*/\1/p' <<<"$line")
    bad=${bad:-$((status != 0))} # newer ctest says nothing of failures when there are none
    if [ -z "$total" ]; then
        echo "    no tests ran in $folder"
        failed=$((failed + 1))
        return 0
    fi
    passed=$((passed + total - bad)) failed=$((failed + bad))
    echo "    $((total - bad)) of $total test programs pass"
    [ "$bad" = 0 ] || grep -vE '^ *[0-9]+/[0-9]+ Test .*Passed|^ +Start ' "$report" | tail -n 150
}

# stage NAME COMMAND: one more check that passes or fails
stage() {
    say "$1"
    if eval "$2" >>"$log" 2>&1; then
        passed=$((passed + 1))
    else
        echo "    FAILED: $1"
        tail -n 40 "$log"
        failed=$((failed + 1))
    fi
}

build() { cmake --build "$1" -j "$jobs" "${@:2}"; } # DIR [arguments of cmake --build]

say "packages"
setup_packages $(build_packages) libcmocka-dev clang python3-venv
setup_packages libopenmpi-dev openmpi-bin || echo "    skipped: Open MPI is not to be had; tune is tested in one process"
setup_packages libonnx-testdata libonnx-dev || echo "    skipped: libonnx-testdata is not to be had; conformance runs on what is in tests/"
stage "include direction" scripts/check-includes.sh
stage "release build, warnings are errors" 'configure release -DREGRAFT_TESTS=ON -DREGRAFT_WERROR=ON && build build/release'
say "tests"
run_tests build/release
stage "build with clang, warnings are errors" \
    'CC=clang cmake -S . -B build/clang -DCMAKE_BUILD_TYPE=Debug -DREGRAFT_WERROR=ON && build build/clang'
stage "build with sanitizers" 'configure asan && build build/asan'
say "tests under address and undefined-behaviour sanitizers"
# gcc 14 places 64-byte vectors in frames for use-after-return that are aligned to 32 only, and crashes (its bug 110027)
REGRAFT_TEST_SIZE=$slow_size OMP_NUM_THREADS=2 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=detect_stack_use_after_return=0 \
    LSAN_OPTIONS="suppressions=$PWD/tests/lsan.supp:print_suppressions=0" run_tests build/asan "${sanitized[@]}"

say "oneDNN 3.x"
onednn3=$PWD/build/onednn3
if scripts/fetch-onednn3.sh "$onednn3" >>"$log" 2>&1; then
    stage "build against oneDNN 3.x" \
        'cmake -S . -B build/dnnl3 -DCMAKE_BUILD_TYPE=Release -DDNNL_ROOT="$onednn3" -DREGRAFT_WERROR=ON && \
         build build/dnnl3 ${second_target[*]}'
    LD_LIBRARY_PATH="$onednn3/lib" run_tests build/dnnl3 "${second[@]}"
else
    echo "    skipped: the packages onednn-cpu-gomp and onednn-devel-cpu-gomp cannot be had here"
fi

# Apart from the sanitizers: counting and checking every access at once takes three times as long as one after the other.
say "line coverage of onnx/ passes/ runtime/"
stage "build and run with gcov" 'cmake -S . -B build/coverage -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" \
    -DREGRAFT_COVERAGE=ON && build build/coverage && { REGRAFT_TEST_SIZE=$slow_size ctest --test-dir build/coverage -j "$jobs" -LE "slow|long" || true; }'
if scripts/coverage.sh build/coverage; then passed=$((passed + 1)); else failed=$((failed + 1)); fi

say "done"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
