#!/bin/bash
# test_tune_cli.sh - adapters and gist tune as a user meets them: training one, stopping and resuming it, using it, merging
# it; tuning a prompt's gist on pairs, on answered and on drawn inputs; usage errors and refusals.
#
#     GIST=build/release/gist bash tests/test_tune_cli.sh        TAP on standard output; tests/run sets GIST, GIST_BUILD
#
# The model is tiny and random (dev/make_tiny.c, made here); what is learned is test_lora.c's and test_tune.c's business.
. "$(dirname "$0")/cli_common.sh"
tiny_models
./make_tiny tiny && ./make_tiny other --layers 2 || exit 1
for i in 1 2 3 4 5 6 7 8 9 10; do
    printf '{"instruction": "say it", "input": "%s", "output": "it is %s"}\n' "$i" "$i"
done >data.jsonl
printf 'one\n{"input": "two"}\n\nthree\n' >inputs.txt

ends() { # STATUS TEXT NAME ARGUMENTS...: gist ends so, and says so
    local want=$1 text=$2 name=$3
    shift 3
    "$gist" "$@" >out 2>err </dev/null
    rc=$?
    check "$name" eval '[ $rc -eq $want ] && grep -qF -- "$text" err out'
}
answer() { # FILE ARGUMENTS...: the ids of an answer
    local to=$1
    shift
    "$gist" generate -n 8 --ignore-eos --json -q "$@" >"$to" 2>err
}

# ---- adapters ------------------------------------------------------------------------------------------------------

train="train --init tiny --data data.jsonl --batch 2 -k 1,2 --lr 0.05 -q"
at_gist="$train --lora-rank 2 --train-only gist"
ends 0 "8 steps" "an adapter at gist tokens" $at_gist --steps 8 -o whole
for f in adapter_config.json adapter_model.safetensors checkpoint.safetensors; do check "it leaves $f" test -s "whole/$f"; done
check "and no model" test ! -e whole/model.safetensors
check "it says where it acts" grep -q '"gist_positions_only": true' whole/adapter_config.json

# Stopped in the middle and resumed: the same adapter.
long="$at_gist --steps 500 --save-every 0"
"$gist" $long -o long >out 2>err &
pid=$!
while [ ! -s long/metrics.jsonl ]; do sleep 0.05; kill -0 $pid 2>/dev/null || break; done
kill -INT $pid
wait $pid
check "a signal saves and stops" grep -q "^stopped after step" out
ends 0 "500 steps" "it goes on" $long --resume -t 2 -o long
ends 0 "500 steps" "a run that nobody stopped" $long -t 1 -o unstopped
check "they end the same" cmp -s long/adapter_model.safetensors unstopped/adapter_model.safetensors
ends 1 "trains was rank 2" "another rank is another run" $train --lora-rank 3 --lora-at gist --steps 500 --save-every 0 \
    --resume -o long

answer plain -m tiny -p "say it" -i 3
answer adapted -m tiny --adapter whole -p "say it" -i 3
check "without gist tokens the base answers" cmp -s plain adapted
ends 0 "gist tokens" "a gist with the adapter" compress -m tiny --adapter whole -p "say it" -k 2 -o adapted.gist
ends 0 "adapter" "gist show names the adapter" show adapted.gist
ends 0 "" "it answers with it" generate -m tiny --adapter whole -g adapted.gist -i 3 -n 4
ends 1 "made with adapter" "not without" generate -m tiny -g adapted.gist -i 3 -n 4
ends 1 "does not fit a llama model with 2 layers" "nor is it another model's" compress -m other --adapter whole -p "say it" -o x.gist
ends 1 "not an adapter directory" "a directory without one" compress -m tiny --adapter tiny -p "say it" -o x.gist

ends 0 "8 steps" "an adapter everywhere" $train --lora-rank 2 --lora-targets q,v --steps 8 -o every
ends 0 "8 steps" "merged" $train --lora-rank 2 --lora-targets q,v --steps 8 --merge -o merged
check "merged is a model" test -s merged/model.safetensors -a ! -e merged/adapter_config.json
"$gist" compress -m tiny --adapter every -p "say it" -k 2 --kv f32 -o every.gist -q &&
    "$gist" compress -m merged -p "say it" -k 2 --kv f32 -o merged.gist -q
answer a -m tiny --adapter every -g every.gist -i 3
answer b -m merged -g merged.gist -i 3
check "merged answers the same" cmp -s a b

ends 2 "need --lora-rank" "--merge without a rank" $train --merge -o x
ends 2 "cannot be merged" "--merge at gist tokens" $at_gist --merge -o x
ends 2 "is no matrix of a block" "unknown targets" $train --lora-rank 2 --lora-targets q,z --steps 1 -o x
ends 2 "is not between 1 and the model's width" "a rank beyond the width" $train --lora-rank 5000 --steps 1 -o x

# ---- tuning --------------------------------------------------------------------------------------------------------

tune="tune -m tiny -k 2 --steps 10 --lr 0.05"
ends 0 "held out" "pairs" $tune -p "say it" --pairs data.jsonl -o one.gist
ends 0 "tuned by gradient descent" "gist show says so" show one.gist
ends 0 "" "the gist answers" generate -m tiny -g one.gist -i 3 -n 4
"$gist" compress -m tiny -p "say it" -k 2 -o predicted.gist -q
check "it is not the predicted one" eval '! cmp -s one.gist predicted.gist'
"$gist" $tune -p "say it" --pairs data.jsonl -o again.gist -q -t 1
check "the same again, on one thread" cmp -s one.gist again.gist
for init in rows random; do
    ends 0 '"objective": "distill"' "--init $init, inputs answered by the model" $tune -p "say it again and again" \
        --inputs inputs.txt --answers 2 -n 5 --init $init --json -o $init.gist
done
"$gist" $tune -p "say it" --pairs data.jsonl --hold-out 50 --save-pairs taught.jsonl -o x.gist -q
check "pairs are written as rows" test "$(grep -c '"instruction":"say it"' taught.jsonl)" = "$(wc -l <data.jsonl)"
rm -f x.gist
ends 1 "was not trained with --input-loss" "inputs cannot be drawn from this model" $tune -p "say it" --sample 3 -o x.gist
sed 's/^{/{"gist_training": {"input_loss": true},/' tiny/config.json >config && mv config tiny/config.json
ends 0 "full prompt" "a cross-entropy is compared with the full prompt's" $tune -p "say it" --pairs data.jsonl -o two.gist
"$gist" $tune -p "say it" --sample 3 -n 20 -o x.gist >out 2>err
check "with that note it may try" eval '! grep -q "was not trained" err'
rm -f x.gist

ends 2 "give one of --pairs" "nothing to learn from" $tune -p "say it" -o x.gist
ends 2 "give the prompt with either" "no prompt" $tune --pairs data.jsonl -o x.gist
ends 2 "fewer than 64 rows" "more rows than the prompt has" tune -m tiny -k 64 --init rows -p "say it" --pairs data.jsonl -o x.gist
printf '{"input": "a", "output": "b"}\n{"input": "a"}\n' >bad.jsonl
ends 1 'bad.jsonl, line 2: "output" is missing' "a pair without an output" $tune -p "say it" --pairs bad.jsonl -o x.gist
printf '\n' >empty.jsonl
ends 1 "empty.jsonl: has no pairs" "an empty file" $tune -p "say it" --pairs empty.jsonl -o x.gist
ends 1 "has no inputs" "no inputs" $tune -p "say it" --inputs empty.jsonl -o x.gist
ends 1 "No such file" "a file that is not there" $tune -p "say it" --pairs nowhere.jsonl -o x.gist
"$gist" convert -q tiny tiny.gguf --type q8_0 >out || exit 1
ends 1 "training begins from a Hugging Face directory" "a GGUF file is refused before anything is drawn" \
    tune -m tiny.gguf -p "say it" --sample 2 -o x.gist
ends 1 "training begins from a Hugging Face directory" "and by train" train --init tiny.gguf --data data.jsonl -o x
check "no failure wrote a gist" test ! -e x.gist
start=$SECONDS
ends 1 "cannot create" "an output that cannot be written is refused before the training" tune -m tiny -p "say it" -k 2 \
    --pairs data.jsonl --steps 1000000 -o nowhere/x.gist
check "at once" test $((SECONDS - start)) -lt 20
done_testing
