# cli_common.sh - what the command-line tests share; sourced by them, no test itself.
#
#     . "$(dirname "$0")/cli_common.sh"      now in a fresh directory, removed at the end; $gist is the program,
#                                            $root the repository
#     tiny_models                            ./make_tiny makes tiny random models (dev/make_tiny.c, built here)
#
#     run ARGUMENTS...                       gist: output in the files out and err, status in $rc
#     result NAME                            the last command's status as a test
#     check NAME COMMAND...                  a command as a test
#     ends STATUS NAME ARGUMENTS...          gist ends so; a failure says "gist: " and prints no result
#     says TEXT NAME, prints TEXT NAME       what the last gist's messages, its results have in them
#     done_testing                           the plan
#
# TAP on standard output; tests/run sets GIST and GIST_BUILD.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export LC_ALL=C.UTF-8
root=$PWD
gist=${GIST:-build/release/gist}
case $gist in /*) ;; *) gist=$root/$gist ;; esac
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

n=0 rc=0 last=
cc=$(cat "${GIST_BUILD:-/nowhere}/cc" 2>/dev/null || echo "${CC:-cc}") # may be several words

tiny_models() {
    $cc -std=c11 -D_GNU_SOURCE "$root/dev/make_tiny.c" -o make_tiny -lm && return 0
    echo "not ok 1 - make_tiny builds"
    exit 1
}
result() {
    local status=$?
    n=$((n + 1))
    if [ $status -eq 0 ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        { echo "\$ gist $last"; head -c 2000 out; echo; head -c 2000 err; } 2>/dev/null | sed 's/^/# /'
    fi
}
check() {
    local name=$1
    shift
    "$@"
    result "$name"
}
run() { # true, so that conditions follow
    last="$*"
    "$gist" "$@" >out 2>err </dev/null
    rc=$?
}
ends() {
    local want=$1 name=$2
    shift 2
    run "$@"
    [ $rc -eq "$want" ] && { [ "$want" -eq 0 ] || { grep -q '^gist: ' err && [ ! -s out ]; }; }
    result "$name"
}
says() {
    grep -qF -- "$1" err
    result "$2"
}
prints() {
    grep -qF -- "$1" out
    result "$2"
}
done_testing() { echo "1..$n"; }
