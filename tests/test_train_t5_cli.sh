#!/bin/bash
# test_train_t5_cli.sh - gist train with an encoder-decoder model, as a user meets it: from a checkpoint, with and without
# <GIST> in its vocabulary, and from a config; resumed; the result answers from a gist; what is refused.
#
#     GIST=build/release/gist bash tests/test_train_t5_cli.sh        TAP on standard output; tests/run sets GIST
#
# The models are the tiny random ones of tests/data/t5; gradients are test_train_t5.c's business.
. "$(dirname "$0")/cli_common.sh"
models=$root/tests/data/t5
for i in 1 2 3 4 5 6; do
    printf '{"instruction": "say it %s", "input": "again %s", "output": "it is %s"}\n' $((i % 3)) $i $i
done >data.jsonl
common="--data data.jsonl -k 2 --batch 4 --batch-tokens 0 --lr 1e-3 --max-length 120"
mix="--condition mix:gist=0.4,full=0.2,pos_control=0.2,none=0.2"

ends 0 "a run under every condition" train --init $models/v11-f32 $common $mix --steps 6 --save-every 3 --val dev=data.jsonl \
    --answers 3 --answer-tokens 4 -o whole
says "dev/exact.pos_control" "answers are scored under each"
ends 0 "the same on one thread" train --init $models/v11-f32 $common $mix --steps 6 -t 1 -o again
check "gives the same weights" cmp -s whole/model.safetensors again/model.safetensors
long="train --init $models/v11-f32 $common $mix --steps 400 --save-every 20 -q"
"$gist" $long -o straight >out 2>err
"$gist" $long -o stopped >out 2>err &
job=$!
while [ ! -e stopped/checkpoint.safetensors ] && kill -0 $job 2>/dev/null; do sleep 0.01; done
kill -INT $job 2>/dev/null
wait $job
check "a run is stopped before its end" eval '[ -e stopped/checkpoint.safetensors ] && [ ! -e stopped/model.safetensors ]'
ends 0 "a stopped run goes on" $long -o stopped --resume
check "as if it had never stopped" cmp -s straight/model.safetensors stopped/model.safetensors
ends 0 "distillation" train --init $models/v11-f32 $common --steps 2 --objective both --condition mix:gist=0.5,full=0.5 -o taught

ends 0 "a vocabulary without <GIST>" train --init $models/v10-f32 $common --steps 2 -o added
ends 0 "has it now" show added
prints "<GIST> 52" "behind the others"
ends 0 "a gist of the result" compress -m added -p "say it" -k 2 -o one.gist
ends 0 "answers" generate -m added -g one.gist -i again -n 3

sed 's/"num_layers": 2/"num_layers": 3/' $models/v11-f32/config.json >config.json
ends 0 "from scratch" train --config config.json --tokenizer $models/v11-f32 $common --steps 2 --optimiser muon -o scratch
ends 0 "with the config's layers" show scratch
prints "3 encoder and 2 decoder layers" "told by show"
ends 0 "heads that begin by looking back" train --config config.json --tokenizer $models/v11-f32 $common --steps 2 \
    --local-heads --optimiser muon -o looking

lora="--lora-rank 2 --steps 8 --lr 0.02"
ends 0 "an adapter" train --init $models/v11-f32 $common $lora -o adapter
ends 0 "the same, merged" train --init $models/v11-f32 $common $lora --merge -o merged
"$gist" compress -m $models/v11-f32 --adapter adapter -p "say it" -k 2 --kv f32 -o adapter.gist -q &&
    "$gist" compress -m merged -p "say it" -k 2 --kv f32 -o merged.gist -q
"$gist" generate -m $models/v11-f32 --adapter adapter -g adapter.gist -i again -n 6 -q >one
"$gist" generate -m merged -g merged.gist -i again -n 6 -q >two
"$gist" generate -m $models/v11-f32 -p "say it" -k 2 -i again -n 6 -q >base
check "answers the same" cmp -s one two
check "and not as the base does" eval '! cmp -s one base'
ends 0 "an adapter at gist positions" train --init $models/v11-f32 $common $lora --train-only gist --lora-at gist -o at-gist
ends 0 "compresses" compress -m $models/v11-f32 --adapter at-gist -p "say it" -k 2 -o at-gist.gist
ends 0 "answers from its gist" generate -m $models/v11-f32 --adapter at-gist -g at-gist.gist -i again -n 6
"$gist" generate -m $models/v11-f32 --adapter at-gist -p "say it" -i again -n 6 -q >one
"$gist" generate -m $models/v11-f32 -p "say it" -i again -n 6 -q >two
check "and as the base does from the whole prompt" cmp -s one two
ends 0 "<GIST>'s embedding alone" train --init $models/v11-f32 $common --steps 2 --train-only gist -o row
ends 1 "the base alone" generate -m $models/v11-f32 -g adapter.gist -i again -n 6
says "adapter" "refuses its gist"

tune="tune -m $models/v11-f32 -p say -k 2 --steps 20 --lr 0.05"
ends 0 "tuning on pairs" $tune --pairs data.jsonl -o tuned.gist
prints "cross-entropy, training pairs" "tells the loss"
ends 0 "tuned rows" show tuned.gist
prints "tuned by gradient descent" "say so"
ends 0 "answer" generate -m $models/v11-f32 -g tuned.gist -i again -n 4
ends 0 "the same on one thread" $tune --pairs data.jsonl -t 1 -o alone.gist
check "gives the same file" cmp -s tuned.gist alone.gist
printf 'one\ntwo\nthree\n' >inputs.txt
ends 0 "tuning on answers of the model, from noise" $tune --inputs inputs.txt --init random -n 5 -o noise.gist
ends 1 "rows of a prompt's cache" $tune --pairs data.jsonl --init rows -o x.gist
says "keeps no cache of a prompt" "are refused"

ends 2 "two numbers of gist tokens" train --init $models/v11-f32 $common -k 2,4 -o x
says "trained for one number" "are refused"
ends 0 "source and answer apart" train --init $models/v11-f32 $common --steps 2 --max-answer 3 --val dev=data.jsonl --answers 2 -o apart
ends 1 "a long answer" train --init $models/v11-f32 $common --max-answer 100000 -o x
says "beyond the model's context" "is refused"
ends 2 "input loss" train --init $models/v11-f32 $common --input-loss 1 -o x
says "predicts no tokens" "is refused"
ends 2 "spread gists" train --init $models/v11-f32 $common --gist-positions spread -o x
ends 0 "recomputation" train --init $models/v11-f32 $common $mix --steps 6 --recompute -o recomputed
check "gives the same weights, too" cmp -s whole/model.safetensors recomputed/model.safetensors
check "nothing was left behind" test ! -e x.gist -a ! -e x/model.safetensors
done_testing
