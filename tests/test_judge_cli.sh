#!/bin/bash
# test_judge_cli.sh - gist eval --judge against a chat endpoint on this machine (judge_server.c): shares, order, resuming,
# and endpoints that fail in every way.
#
#     GIST=build/release/gist bash tests/test_judge_cli.sh        TAP on standard output; tests/run sets GIST, GIST_BUILD
. "$(dirname "$0")/cli_common.sh"
$cc -std=c11 -D_GNU_SOURCE "$root/tests/judge_server.c" -o judge_server || exit 1
server=
stop() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null
    server=
}
trap 'stop; rm -rf "$dir"' EXIT
serve() { # MODE [N]: $url is its address, requests is its log
    stop
    rm -f port
    ./judge_server port requests "$@" &
    server=$!
    for _ in $(seq 100); do
        [ -e port ] && break
        sleep 0.05
    done
    url=http://127.0.0.1:$(cat port)/v1
}
unset GIST_JUDGE_KEY

# Rows 1-3: A is good; 4: B is; 5, 6: neither; 7: equal.
{
    echo x,y_pred,y_true
    for i in 1 2 3; do echo "\"Instruction: $i, \"\"please\"\"\",good $i,ref $i"; done
    echo "Instruction: 4,bad 4,ref 4"
    for i in 5 6; do echo "Instruction: $i,so $i,ref $i"; done
    echo "Instruction: 7,the same,ref 7"
} >a.csv
sed 's/,good /,bad /; s/,bad 4/,good 4/; s/,so /,other /' a.csv >b.csv
judged() { # NAME ARGUMENTS...
    local name=$1
    shift
    ends 0 "$name" eval --judge "$url" --judge-model stand-in a.csv b.csv "$@"
}

serve good
judged "two files" --bootstrap 200
prints "A better       3" "A's are counted"
prints "B better       1" "and B's"
prints "ties           2 judged, 1 equal answers" "and ties"
prints "share of A     64.3 %" "ties count half"
check "equal answers are not asked about" test "$(wc -l <requests)" -eq 6
grep -q '^- {' requests && grep -q '"model":"stand-in"' requests && grep -q 'Instruction: 1, \\"please\\"' requests
result "the request holds the model and what was asked"
cp requests seed0
judged "the same seed" --json
cmp -s requests seed0 || [ "$(tail -n 6 requests)" = "$(cat seed0)" ]
result "draws the same order"
prints '"a_better": 3, "b_better": 1, "ties": 2, "equal": 1, "unclear": 0, "asked": 6' "JSON"
judged "another seed" --seed 5
[ "$(tail -n 6 requests)" != "$(cat seed0)" ]
result "draws another order"
swapped=$(tail -n 6 requests | grep -c 'Answer 1\\n\(bad [123]\|good 4\|other\)')
[ "$swapped" -gt 0 ] && [ "$swapped" -lt 6 ]
result "either file comes first at times"
prints "share of A     64.3 %" "which the share does not depend on"
judged "some rows" --limit 4
prints "4 pairs" "--limit"
ends 0 "the whole address" eval --judge "$url/chat/completions" --judge-model x a.csv b.csv --limit 1

serve first
judged "a judge that likes what comes first"
prints "shown first    preferred 6 of 6 times" "is found out"

# ---- the key -------------------------------------------------------------------------------------------------------

serve good
export GIST_JUDGE_KEY=sk-secret-1
judged "a key" -o keyed
check "is sent" grep -q '^Bearer sk-secret-1 {' requests
! grep -rq sk-secret out err keyed
result "and neither printed nor kept"
export OTHER_KEY=sk-other
judged "a key by another name" --judge-key-env OTHER_KEY --limit 1
check "is sent too" grep -q '^Bearer sk-other {' requests
ends 2 "a key in the clear" eval --judge http://judge.invalid/v1 --judge-model x a.csv b.csv
says "https:// is needed" "is refused"
! grep -q sk-secret err
result "and not told"
GIST_JUDGE_KEY=$(printf 'a\r\nX-Other: b') ends 2 "a key that would be two headers" eval --judge "$url" --judge-model x a.csv b.csv
unset GIST_JUDGE_KEY OTHER_KEY

# ---- resuming ------------------------------------------------------------------------------------------------------

serve until 4
ends 1 "an endpoint that gives up" eval --judge "$url" --judge-model x a.csv b.csv -o kept
says "HTTP status 400: {\"error\": \"not now\"}" "is told with what it said"
check "what was judged is kept" test "$(wc -l <kept/judgements.jsonl)" -eq 4
serve good
ends 2 "judgements that are there" eval --judge "$url" --judge-model x a.csv b.csv -o kept
says "--resume goes on with them" "are not thrown away"
ends 0 "resumed" eval --judge "$url" --judge-model x a.csv b.csv -o kept --resume
prints "7 pairs, 2 asked now" "the rest is asked"
prints "share of A     64.3 %" "with the same result"
ends 0 "resumed again" eval --judge "$url" --judge-model x a.csv b.csv -o kept --resume
prints "7 pairs, 0 asked now" "nothing is asked twice"
ends 0 "another judge" eval --judge "$url" --judge-model y a.csv b.csv -o kept --resume
prints "7 pairs, 6 asked now" "is asked anew"
serve garbage
ends 0 "a judge without verdicts" eval --judge "$url" --judge-model x a.csv b.csv -o unclear
prints "unclear        6" "is counted"
prints "share of A     50.0 %" "equal answers alone have a share"
check "its replies are kept" grep -q '"verdict":"unclear","reply":"It depends."' unclear/judgements.jsonl

# ---- endpoints that fail -------------------------------------------------------------------------------------------

serve late 1
judged "an endpoint that fails once"
says "HTTP status 500" "is told"
prints "share of A     64.3 %" "and tried again"
serve late 9
ends 1 "one that fails always" eval --judge "$url" --judge-model x a.csv b.csv --judge-tries 2 -q
says "HTTP status 500" "is given up"
check "after --judge-tries" test "$(wc -l <requests)" -eq 2
serve stall
ends 1 "one that stalls" eval --judge "$url" --judge-model x a.csv b.csv --judge-timeout 1 --judge-tries 1
says "timed out" "is not waited for"
serve huge
ends 1 "a response without end" eval --judge "$url" --judge-model x a.csv b.csv
says "a response of more than 4194304 bytes" "is cut"
serve broken
ends 1 "a response that is no JSON" eval --judge "$url" --judge-model x a.csv b.csv
says "$url/chat/completions: " "is named with its address"
serve nothing
ends 1 "a response without a reply" eval --judge "$url" --judge-model x a.csv b.csv
says "no choices[0].message.content" "is told"
stop
ends 1 "nobody there" eval --judge "$url" --judge-model x a.csv b.csv --judge-tries 1
says "$url" "is named"

# ---- files that do not belong together -----------------------------------------------------------------------------

head -n 5 b.csv >short.csv
ends 1 "fewer rows" eval --judge "$url" --judge-model x a.csv short.csv
says "short.csv has 4 predictions, a.csv 7" "are counted"
sed 's/ion: 5,/ion: 55,/' b.csv >moved.csv
ends 1 "another input" eval --judge "$url" --judge-model x a.csv moved.csv
says "moved.csv:6: x is not that of a.csv:6" "is named with file and line"
sed 's/,ref 6/,ref 66/' b.csv >moved.csv
ends 1 "another reference" eval --judge "$url" --judge-model x a.csv moved.csv
says "moved.csv:7: the reference is not that of a.csv:7" "is named with file and line"
cut -d, -f2,3 b.csv >less.csv
ends 1 "no x" eval --judge "$url" --judge-model x b.csv less.csv
says "less.csv:1: no column x" "is told"
ends 2 "one file" eval --judge "$url" --judge-model x a.csv
ends 2 "no judge" eval a.csv b.csv
says "are compared with --judge URL" "is told"
ends 2 "no name" eval --judge "$url" a.csv b.csv
says "--judge-model NAME is needed" "is told"
ends 2 "not an address" eval --judge file:///etc/passwd --judge-model x a.csv b.csv
says "an http:// or https:// address is needed" "is told"
ends 2 "a model to answer and a judge" eval -m tiny --judge "$url" --judge-model x a.csv b.csv
done_testing
