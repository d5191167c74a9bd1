#!/bin/bash
# test_bench_gist_cli.sh - gist bench gist as a user meets it: counting, measuring on tiny models, files, refusals; and
# the paper's mean FLOPs, where its data and tokenizers are (GIST_TEST_DATA).
#
#     GIST=build/release/gist bash tests/test_bench_gist_cli.sh      TAP on standard output; tests/run sets GIST, GIST_BUILD
#
# What is counted and saved is test_flops.c's business; no time is judged here.
data=${GIST_TEST_DATA:-../shared/data}
case $data in /*) ;; *) data=$PWD/$data ;; esac
. "$(dirname "$0")/cli_common.sh"
tiny_models
./make_tiny tiny || exit 1
shape=2,64,96,4,2,300
for i in 1 2 3; do
    printf '{"instruction": "say the number %s to everybody, please", "input": "one, two", "output": "%s"}\n' $i $i
done >three.jsonl
printf '{"instruction": "say the number again, and this time to everybody who has not heard it", "output": "no"}\n' >>three.jsonl
printf '{"instruction": "no output", "output": ""}\n' >>three.jsonl

field() { # FILE NAME [ROW]: a column of a CSV
    awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i; next } { print $at }' "$1"
}
# within SHARE GOT WANT
within() { awk -v s="$1" -v a="$2" -v b="$3" 'BEGIN { d = a / b - 1; exit !(d <= s && d >= -s) }'; }

# ---- counting ----

ends 0 "a dry run of a shape" bench gist --dry --shape $shape --prompt-tokens 30,100 --input-tokens 7 -k 3 --csv dry.csv --chart dry.svg
prints "nothing was run" "says so"
prints "100 tokens: 1 example" "a group for every length"
check "a line per way and length" [ "$(wc -l <dry.csv)" -eq 7 ]
check "no times in it" [ -z "$(field dry.csv forward_ms | tr -d '\n')" ]
check "cached rows of the full prefix and the gist" [ "$(field dry.csv cache_bytes | xargs)" = "0 8448 768 0 26368 768" ]
check "a chart by itself" eval 'head -c 60 dry.svg | grep -q "<svg xmlns" && [ "$(tail -n 1 dry.svg)" = "</svg>" ] && ! grep -q "nan\|inf" dry.svg'
ends 0 "a dry run of a directory" bench gist --dry -m tiny --data three.jsonl --json
prints '"examples": 4' "every example that can be answered"
prints '"left_out": 1' "the others are counted"
rm tiny/model.safetensors
ends 0 "needs no weights" bench gist --dry -m tiny --data three.jsonl
./make_tiny tiny
mkdir t5 && cat >t5/config.json <<'END'
{"model_type": "t5", "num_layers": 2, "d_model": 32, "d_ff": 64, "num_heads": 2, "d_kv": 16, "vocab_size": 256,
 "feed_forward_proj": "gated-gelu"}
END
ends 0 "an encoder-decoder's config is enough" bench gist --dry -m t5 --prompt-tokens 30 --csv t5.csv
check "which has no full-prefix cache" [ "$(field t5.csv way | xargs)" = "none gist" ]

# ---- measuring ----

mkdir tmp
ends 0 "a random model" bench gist --shape $shape --prompt-tokens 30,100 -k 3 -r 2 --decode 2 --buffer 64 --csv run.csv --chart run.svg --tmp tmp
prints "saved as time to first token" "shares of FLOPs and roofline"
check "a line per pass" [ "$(wc -l <run.csv)" -eq 13 ]
check "every pass has its place in the order" [ "$(field run.csv order | sort -n | xargs)" = "1 1 2 2 3 3 4 4 5 5 6 6" ]
check "every time was measured" [ "$(field run.csv decode_ms | grep -c '[1-9]')" -eq 12 ]
check "counted as in the dry run" [ "$(field run.csv cache_bytes | sort -u | xargs)" = "$(field dry.csv cache_bytes | sort -u | xargs)" ]
check "nothing is left behind" [ -z "$(ls tmp)" ]
ends 0 "a real model, another seed" bench gist -m tiny --data few=three.jsonl --limit 3 -k 2 --kv f32 --seed 2 --buffer 64 --json -q
prints '"name": "few"' "named by the caller"
prints '"first_token_of_roofline"' "with the roofline's share"
[ "$(wc -l <out)" -eq 1 ] && [ ! -s err ]
result "one object on one line"
printf '{"instruction": "read", "input": "%s", "output": "yes"}\n' "$(seq -s ' ' 400)" >long.jsonl
ends 0 "an input longer than the context" bench gist -m tiny --data long.jsonl --decode 3 --buffer 64 --csv long.csv
[ "$(field long.csv prompt_tokens | head -n 1)" -gt 0 ] && [ "$(field long.csv input_tokens | head -n 1)" -lt 509 ]
result "is cut"
ends 0 "a quantized shape and a tokenizer" bench gist --shape $shape --type q8_0 --tokenizer tiny --data three.jsonl --buffer 64 -t 2
prints "weights q8_0" "weights are q8_0"
run bench gist --dry --shape $shape --tokenizer tiny --data three.jsonl --csv a.csv
run bench gist --dry --shape $shape --tokenizer tiny --data three.jsonl --csv b.csv --seed 9
check "counts depend on no seed" cmp -s a.csv b.csv

# ---- stopping ----

stopped() { # N OPTIONS...: ask it to end when it has written its Nth gist
    local seen=0 last='' now pid want=$1
    shift
    "$gist" bench gist "$@" --buffer 64 --tmp tmp >out 2>err </dev/null &
    pid=$!
    for _ in $(seq 2000); do
        now=$(stat -c %i-%Y-%Z tmp/*/one.gist 2>/dev/null)
        [ "$now" != "$last" ] && [ -n "$now" ] && seen=$((seen + 1)) && last=$now
        [ $seen -ge "$want" ] && break
        sleep 0.02
    done
    kill -TERM $pid
    wait $pid
    rc=$?
}
stopped 1 --shape $shape --prompt-tokens 60 -r 1000 --decode 1000
[ $rc -eq 1 ] && grep -q "^gist: .*interrupted" err && [ ! -s out ]
result "stopped before anything is whole"
check "nothing is left behind then either" [ -z "$(ls tmp)" ]
for i in $(seq 300); do head -n 3 three.jsonl; done >many.jsonl
stopped 3 -m tiny --data many.jsonl --json
n_done=$(sed -n 's/.*"examples": \([0-9]*\).*/\1/p' out)
[ $rc -eq 0 ] && grep -q "interrupted: ${n_done:-none} of 900" err
result "stopped later, it reports what was measured"

# ---- refusals ----

while read -r arguments; do
    # shellcheck disable=SC2086
    ends 2 "bench gist $arguments" bench gist $arguments
done <<END

-m tiny
--dry --shape $shape
-m tiny --shape $shape --prompt-tokens 4
--shape $shape --data three.jsonl
--shape flan-t5-xxl --prompt-tokens 4
--shape $shape --prompt-tokens 4,,5
--shape $shape --prompt-tokens 0
--shape $shape --prompt-tokens 4 -k 0
--shape $shape --prompt-tokens 4 --template none
-m tiny --tokenizer tiny --data three.jsonl
END
ends 1 "no such data" bench gist -m tiny --data none.jsonl
says "none.jsonl" "is named"
ends 1 "nothing fits" bench gist -m tiny --data three.jsonl --max-length 3
says "no example" "is said"
ends 1 "no place for caches" bench gist -m tiny --prompt-tokens 4 --tmp nowhere --buffer 64
says "nowhere" "is named"
ends 1 "longer than the context" bench gist -m tiny --prompt-tokens 100000 --buffer 64
ends 1 "a T5 is not run" bench gist -m t5 --prompt-tokens 4
printf '{"model_type": "t5", "num_layers": 0}' >t5/config.json
ends 1 "a config out of bounds" bench gist --dry -m t5 --prompt-tokens 4
says "num_layers" "names the key"

# ---- the paper's means ----

published() { # MODEL'S OPTIONS, then WAY GFLOPS PAIRS
    local human=$data/alpaca_plus/validation_human.jsonl tokenizer=$2 shape=$1
    shift 2
    if [ ! -e "$human" ] || [ ! -e "$data/tokenizers/$tokenizer" ]; then
        n=$((n + 1))
        echo "ok $n - published FLOPs of $shape # SKIP no $human or $data/tokenizers/$tokenizer (set GIST_TEST_DATA)"
        return
    fi
    ends 0 "$shape over the human split" bench gist --dry --shape "$shape" --tokenizer "$data/tokenizers/$tokenizer" --data "$human" --csv human.csv
    while [ $# -gt 0 ]; do
        got=$(awk -F, -v way="$1" '$4 == way { s += $9; n++ } END { print n == 252 ? s / n : "wrong" }' human.csv)
        check "$1: $got GFLOPs, published $2" within 0.002 "$got" "$2"
        shift 2
    done
}
published llama-7b llama/tokenizer.model none 914.7 full 553.1 gist 552.5
published flan-t5-xxl t5 none 715.8 gist 426.8
done_testing
