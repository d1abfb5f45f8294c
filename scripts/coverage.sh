#!/usr/bin/env bash
# Line coverage of onnx/, passes/ and runtime/ from a build that was run with -DREGRAFT_COVERAGE=ON: coverage.sh BUILD [MINIMUM]
# Prints a line for each file below 60 % and the total; exits 1 when the total is below MINIMUM (default 85).
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(cd "${1:?a build folder}" && pwd) minimum=${2:-85} top=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
find "$build" -name '*.gcda' -path '*regraft_*' ! -path '*regraft_proto*' -print0 | xargs -0 -r gcov -r -s "$top" >summary.txt 2>/dev/null
awk -v minimum="$minimum" '
    /^File / { name = substr($0, 7, length($0) - 7); next }
    /^Lines executed:/ && name ~ /^(onnx|passes|runtime)\/.*\.c$/ {
        split($0, part, /[:% ]+/); percent = part[3]; lines = $NF
        if (!(name in hits) || percent > hits[name]) { hits[name] = percent; size[name] = lines }
        name = ""
    }
    END {
        for (n in hits) { total += size[n]; hit += hits[n] * size[n] / 100; if (hits[n] < 60) printf "    %5.1f %%  %s\n", hits[n], n }
        if (total == 0) { print "    no coverage data"; exit 1 }
        printf "    %.1f %% of %d lines in %d files\n", 100 * hit / total, total, length(hits)
        exit (100 * hit / total < minimum)
    }' summary.txt
