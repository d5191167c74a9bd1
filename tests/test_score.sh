#!/bin/bash
# test_score.sh - gist score as a user meets it: CSV, JSON Lines, standard input, --json, --per-example, threads, errors.
#
#     GIST=build/release/gist bash tests/test_score.sh        TAP on standard output; tests/run sets GIST
. "$(dirname "$0")/cli_common.sh"
pairs=$root/tests/data/rouge/pairs.jsonl

# Two equal of four; one shares half of its words, in order; one is empty.
printf '\357\273\277x,y_pred,y_true\r\n"q, r",the shop,"The shop"\r\n2,"a\r\nb","a\nb"\r\n3,one two,one three\r\n4,,"a ""word"""\r\n' >p.csv
printf '%s\n' '{"prediction": "the shop", "reference": "The shop", "id": 1}' '{"y_pred": "a\nb", "y_true": "a\nb"}' >p.jsonl

# ---- results -------------------------------------------------------------------------------------------------------

ends 0 "a CSV" score p.csv
prints "p.csv, 4 pairs" "it counts pairs"
[ "$(sed -n 's/^rouge1 *\([0-9.]*\) .*/\1/p' out)" = 62.50 ]
result "mean of rouge1"
[ "$(sed -n 's/^rouge2 *\([0-9.]*\) .*/\1/p' out)" = 50.00 ]
result "mean of rouge2"
prints "exact            0.00  [0.00, 0.00]" "case and line ends count in exact match"
prints "words          prediction 1.5, reference 2.0" "mean lengths"
prints "1000 resamples, seed 0" "the interval's making"
ends 0 "JSON Lines, both spellings" score p.jsonl --bootstrap 0
prints "exact           50.00" "exact match, and no interval when none is asked for"
cp out from_file
last="score - <p.jsonl"
"$gist" score - --bootstrap 0 <p.jsonl >out 2>err && [ "$(tail -n +2 out)" = "$(tail -n +2 from_file)" ]
result "standard input"

ends 0 "--json" score "$pairs" --json
[ "$(wc -l <out)" -eq 1 ] && grep -q '"pairs": [0-9]*, "bootstrap": 1000, "seed": 0, "rouge1": {"mean": [0-9.]*, "low": [0-9.]*, "high": [0-9.]*}' out
result "one object on one line"
cp out json
ends 0 "one thread" score "$pairs" --json -t 1
cmp -s out json
result "gives the same bytes"
ends 0 "seven threads" score "$pairs" --json -t 7 --per-example rows.csv
cmp -s out json
result "give the same bytes"
ends 0 "another seed" score "$pairs" --json --seed 1
! cmp -s out json && [ "$(grep -o '"mean": [0-9.]*' out)" = "$(grep -o '"mean": [0-9.]*' json)" ]
result "moves the interval, not the means"
ends 0 "the largest seed" score p.csv --json --seed 18446744073709551615
prints '"seed": "18446744073709551615"' "is told in full"

[ "$(head -n 1 rows.csv)" = "line,rouge1,rouge2,rougeL,rougeLsum,exact,words_pred,words_true" ] &&
    [ "$(wc -l <rows.csv)" -eq $(($(wc -l <"$pairs") + 1)) ]
result "--per-example: a header and a row per pair"
sed -n 's/.*"f1":\[\(.*\)\]}$/\1/p' "$pairs" >want
tail -n +2 rows.csv | cut -d, -f2-5 | paste -d, - want |
    awk -F, '{ for (i = 1; i <= 4; i++) { d = $i - $(i + 4); if (d > 1e-6 || d < -1e-6) bad = 1 } } END { exit bad || NR < 300 }'
result "--per-example: each score is the reference's"
ends 0 "rows of a CSV with line ends in fields" score p.csv --per-example rows.csv
[ "$(cut -d, -f1 rows.csv | tr '\n' ' ')" = "line 2 3 6 7 " ]
result "--per-example: the lines where rows begin"

# ---- errors --------------------------------------------------------------------------------------------------------

ends 2 "no file" score
ends 2 "a bootstrap below 0" score p.csv --bootstrap -1
ends 1 "a file that is not there" score none.csv
says "none.csv" "is named"
printf 'x,y_pred\n1,2\n' >bad.csv
ends 1 "a missing column" score bad.csv
says "bad.csv:1: the header has no column y_true" "is named with file and line"
printf 'y_pred,y_true\na,b\nc\n' >bad.csv
ends 1 "a short row" score bad.csv --json
says "bad.csv:3: 1 fields, the header has 2" "is named with file and line"
printf 'y_pred,y_true\na,"b\nc\n' >bad.csv
ends 1 "an open quote" score bad.csv
says "bad.csv:2: this quoted field never ends" "is named where it opens"
printf '{"y_pred":"a","y_true":"b"}\n{"y_pred":"a",\n' >bad.jsonl
ends 1 "broken JSON" score bad.jsonl --per-example none.csv
says "bad.jsonl:2: " "is named with file and line"
[ ! -e none.csv ]
result "and no scores are written"
: >empty.csv
ends 1 "an empty file" score empty.csv
ends 1 "a directory" score .
echo old >rows.csv
ends 1 "scores that cannot be written" score p.csv --per-example no/such/rows.csv
! ls -- *.tmp-* >/dev/null 2>&1 && [ "$(cat rows.csv)" = old ]
result "leave nothing behind"
if [ -w /dev/full ]; then
    last="score p.csv >/dev/full"
    "$gist" score p.csv >/dev/full 2>err
    [ $? -eq 1 ] && grep -q '^gist: ' err
    result "results that cannot be written are an error"
fi
done_testing
