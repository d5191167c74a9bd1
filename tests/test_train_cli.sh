#!/bin/bash
# test_train_cli.sh - gist train as a user meets it: a run, its files, a signal and --resume, usage errors and refusals.
#
#     GIST=build/release/gist bash tests/test_train_cli.sh        TAP on standard output; tests/run sets GIST, GIST_BUILD
#
# The model is tiny and random (dev/make_tiny.c, made here); bit-exactness is test_train_loop.c's business.
. "$(dirname "$0")/cli_common.sh"
tiny_models
./make_tiny tiny && ./make_tiny bare --no-gist || exit 1
for i in 1 2 3 4 5 6; do
    printf '{"instruction": "say %s", "input": "one", "output": "%s"}\n' "$i" "$i"
done >data.jsonl
head -n 2 data.jsonl >val.jsonl

train() { # options: output in out and err, status in $rc
    "$gist" train "$@" >out 2>err </dev/null
    rc=$?
}
ends() { # STATUS TEXT NAME OPTIONS...: ends so, and says so
    local want=$1 text=$2 name=$3
    shift 3
    train "$@"
    check "$name" eval '[ $rc -eq $want ] && grep -qF -- "$text" err out'
}
run="--data data.jsonl --batch 2 --steps 6 -k 1,2"

ends 0 "6 steps" "a run" --init tiny $run --val held=val.jsonl --condition mix:gist=0.5,full=0.25,none=0.25 \
    --objective both --eval-every 3 -o whole
for f in config.json model.safetensors tokenizer.json generation_config.json checkpoint.safetensors metrics.jsonl \
    curve.svg best/model.safetensors best/config.json; do
    check "it leaves $f" test -s "whole/$f"
done
check "a line per step and validation" test "$(wc -l <whole/metrics.jsonl)" -eq 9
check "validations of every condition and k" grep -q '"held/gist.k1":.*"held/gist.k2":.*"held/full":.*"held/none":' whole/metrics.jsonl
ends 0 "held/exact.gist.k1 0.0%" "answers are scored" --init tiny $run --val held=val.jsonl --answers 1 --answer-tokens 4 \
    --condition mix:gist=0.5,full=0.5 --best held/exact.gist.k2 -o scored
check "their scores are logged" \
    grep -q '"scores":{"held/exact.gist.k1":0,"held/exact.gist.k2":0,"held/exact.full":0}' scored/metrics.jsonl
check "and drawn" grep -q 'held/exact.full' scored/curve.svg
ends 2 "there are: held/gist, held/exact.gist" "an unknown metric for the best" --init tiny --data data.jsonl --steps 1 \
    --val held=val.jsonl --answers 1 --answer-tokens 1 --best held/rouge -o unknown
ends 2 "needs a --val" "answers without a split" --init tiny $run --answers 1 -o x
check "nothing temporary is left" eval '! ls whole | grep -q tmp'
"$gist" compress -m whole -p "say 1" -k 2 -o one.gist >out 2>err
check "the result compresses" test -s one.gist
"$gist" generate -m whole -g one.gist -i one -n 3 >out 2>err
check "the result answers" test $? -eq 0
ends 0 '"steps": 6' "--json" --init bare $run --json -q -o json
check "a vocabulary without <GIST> gets it" grep -q '<GIST>' json/tokenizer.json
"$gist" compress -m json -p "say 1" -o two.gist >out 2>err
check "and the result knows it" eval '[ -s two.gist ] && ! grep -q warning err'
ends 0 "6 steps" "from scratch" --config tiny/config.json --tokenizer tiny $run --type bf16 --save-type bf16 --recompute -o scratch

ends 0 "stopped after step 4 of 6" "part of a run" --init tiny $run --type bf16 --recompute --stop-after 4 -o parts
check "has a checkpoint and no model yet" eval '[ -s parts/checkpoint.safetensors ] && [ ! -e parts/model.safetensors ]'
ends 0 "stopped after step 4 of 6" "no step is left of the part" --init tiny $run --type bf16 --recompute --stop-after 4 --resume -o parts
ends 0 "6 steps" "the rest" --init tiny $run --type bf16 --recompute --resume -o parts
train --init tiny $run --type bf16 --recompute -o straight
check "parts are the whole" cmp -s parts/model.safetensors straight/model.safetensors

# A signal in the middle, then on: equal to a run that nobody stopped.
long="--init tiny --data data.jsonl --batch 2 --steps 4000 --save-every 0 -q"
"$gist" train $long -o stopped >out 2>err &
pid=$!
while [ ! -s stopped/metrics.jsonl ]; do sleep 0.05; kill -0 $pid 2>/dev/null || break; done
kill -INT $pid
wait $pid
rc=$?
check "a signal saves and stops" eval '[ $rc -eq 0 ] && grep -q "^stopped after step" out && [ -s stopped/checkpoint.safetensors ]'
ends 1 "belongs to another run: lr was 2e-05, now it is 0.5" "another rate is another run" $long --lr 0.5 --resume -o stopped
ends 2 "holds a run already" "a run is not overwritten" $long -o stopped
ends 2 "holds a model already" "nor is a model" --init tiny $run -o tiny
cp -r tiny copy
ends 2 "holds a model already" "nor with --resume, where no run is to go on" --init copy $run --resume -o copy
check "and it is as it was" cmp -s tiny/model.safetensors copy/model.safetensors
train --init tiny $run -o swept
touch swept/model.safetensors.tmp-1-0 swept/notes.tmp-mine
train --init tiny $run --resume -o swept
check "what a killed run left half-written is removed" eval '[ ! -e swept/model.safetensors.tmp-1-0 ] && [ -e swept/notes.tmp-mine ]'

ends 2 "without an encoder" "a bound of answers alone" --init tiny $run --max-answer 8 -o x
ends 2 "--data FILE is missing" "no data" --init tiny -o x
ends 2 "give --init" "no beginning" --data data.jsonl -o x
ends 2 "not one of gist, full" "an unknown condition" --init tiny $run --condition half -o x
ends 2 "shares sum to 0.75" "shares that do not sum to 1" --init tiny $run --condition mix:gist=0.5,full=0.25 -o x
ends 2 "not a list of counts" "bad counts" --init tiny --data data.jsonl -k 1,x -o x
ends 2 "not like unseen=FILE" "a split without a name" --init tiny $run --val val.jsonl -o x
ends 2 "--template" "an unknown template" --init tiny $run --template nice -o x
ends 1 "special token" "a template that the vocabulary cannot honour" --init tiny $run --template chatml -o x
ends 1 "context" "longer than the context" --init tiny $run --max-length 100000 -o x
printf '{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n' >bad.jsonl
ends 1 'bad.jsonl: line 2: "output" is missing' "a row without an answer" --init tiny --data bad.jsonl --steps 1 -o x
: >empty.jsonl
ends 1 "empty" "an empty file" --init tiny --data empty.jsonl --steps 1 -o x
check "none of these left anything" test ! -e x
done_testing
