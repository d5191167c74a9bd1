#!/bin/bash
# test_eval_cli.sh - gist eval as a user meets it: conditions, files, agreement with generate and score, refusals.
#
#     GIST=build/release/gist bash tests/test_eval_cli.sh        TAP on standard output; tests/run sets GIST, GIST_BUILD
#
# The models are tiny and random (dev/make_tiny.c, made here); what the parts compute is test_eval.c's business.
. "$(dirname "$0")/cli_common.sh"
tiny_models
./make_tiny tiny && ./make_tiny other --seed 2 || exit 1
for i in 1 2 3; do
    printf '{"instruction": "say the number %s to everybody, please", "input": "one, \\"two\\"", "output": "%s, yes", "kind": "a,b"}\n' $i $i
    printf '{"instruction": "say the number %s to everybody, please", "output": "no"}\n' $i
done >dev.jsonl
all=full,gist,none,tfidf,pos_control,neg_control

ends 0 "every condition" eval -m tiny --data dev=dev.jsonl --conditions $all -k 1,2 -n 8 -o res --tfidf-words 3 --cached-check
prints "gist.k2" "conditions are listed"
prints "gist.10x" "the tenfold row too"
prints "dev: 6 examples of 3 prompts" "examples and prompts are counted"
prints "cached-check: every gist's answers" "cached and uncached answers agree"
for c in full gist.k1 gist.k2 none tfidf tfidf.3words pos_control.k1 neg_control.k2; do
    check "predictions of $c" grep -q '^x,y_pred,y_true,prompt_tokens,k,tokens,finish,kind$' "res/dev.$c.csv"
done
for f in results.json results.md results.html; do check "it leaves $f" test -s "res/$f"; done
check "a page with charts" grep -q '<svg' res/results.html
check "nothing temporary is left" eval '! ls res | grep -q tmp'
cp out table
ends 0 "score reads the predictions" score res/dev.gist.k2.csv --bootstrap 0
prints "6 pairs" "all of them"
want=$(grep '^dev *gist.k2 ' table | awk '{ print $5 }')
[ "$(sed -n 's/^exact *//p' out)" = "${want}0" ]
result "and finds the same exact match"

"$gist" compress -m tiny -p "say the number 1 to everybody, please" -k 2 -o one.gist >out 2>err
run generate -m tiny -g one.gist -i 'one, "two"' -n 8 --json
text=$(sed -n 's/.*"ids": \[\([^]]*\)\].*/\1/p' out | wc -w)
check "an answer has generate's length" grep -q "^Input: one, \"\"two\"\"\",.*,2,$text,[a-z]*,\"a,b\"$" res/dev.gist.k2.csv

ends 0 "--json" eval -m tiny --data dev=dev.jsonl -k 2 -n 8 --batch 1 --json --limit 4 -q
prints '"examples": 4' "--limit"
[ "$(wc -l <out)" -eq 1 ]
result "one object on one line"
ends 0 "batches of one" eval -m tiny --data dev=dev.jsonl --conditions $all -k 1,2 -n 8 -o single --tfidf-words 3 --batch 1 -t 1
cmp -s res/dev.gist.k1.csv single/dev.gist.k1.csv && cmp -s res/dev.full.csv single/dev.full.csv && cmp -s res/results.json single/results.json
result "give the same bytes"
ends 0 "models for the controls" eval -m tiny --pos other --neg other --data dev=dev.jsonl --conditions $all -n 8 -o three --tfidf-corpus dev.jsonl
cmp -s single/dev.gist.k1.csv three/dev.gist.k1.csv && ! cmp -s single/dev.pos_control.k1.csv three/dev.pos_control.k1.csv &&
    ! cmp -s single/dev.neg_control.k1.csv three/dev.neg_control.k1.csv
result "answer in their place"

printf '{"instruction": "say %%s", "output": "yes"}\n' 1 2 | sed 's/%s/1/' >short.jsonl
ends 0 "prompts too short for tenfold" eval -m tiny --data dev=short.jsonl -k 8 -n 4
! grep -q gist.10x out
result "have no such row"
ends 0 "a length of its references" eval -m tiny --data dev=dev.jsonl --label-tokens dev=768 -k 1 -n 2
cat >talk.jsonl <<'END'
{"messages": [{"role": "system", "content": "say yes"}, {"role": "user", "content": "one"}, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "two"}, {"role": "assistant", "content": "no"}]}
END
cp -r tiny chat && sed -i 's/<s>/<|im_start|>/g; s/<\/s>/<|im_end|>/g' chat/*.json
ends 0 "conversations" eval -m chat --template chatml --data talk=talk.jsonl -k 2 -n 4 --cached-check -o talked
prints "talk: 2 examples of 1 prompts" "an example for each answer"
grep -qzF $'Instruction: say yes\nInput: one\nOutput: yes\nInput: two"' talked/talk.full.csv
result "x holds what was said before"
ends 0 "several seeds" eval -m tiny --also other --also tiny --data dev=dev.jsonl -k 1,2 -n 8 -o seeds
prints "3 models: mean" "are told with their spread"
check "in the page too" grep -q '<h3>3 models</h3>' seeds/results.html
cmp -s seeds/dev.gist.k1.csv seeds/dev.gist.k1.model3.csv && ! cmp -s seeds/dev.gist.k1.csv seeds/dev.gist.k1.model2.csv &&
    cmp -s seeds/dev.gist.k1.csv single/dev.gist.k1.csv
result "each with its predictions"
[ "$(grep -c '"retention_exact": {' seeds/results.json)" -ge 20 ] && grep -q '"models": \[' seeds/results.json
result "each with its figures"
ends 0 "the second seed alone" eval -m other --data dev=dev.jsonl -k 1,2 -n 8 -o second
own=$(awk -F ' [|] ' '/^[|] gist.k1/ { print $4, $5, $6, $7 }' second/results.md)
also=$(awk -F ' [|] ' '/^Model 2/ { on = 1 } on && /^[|] gist.k1/ { sub(/ [|]$/, ""); print $2, $3, $4, $5; exit }' seeds/results.md)
[ -n "$own" ] && [ "$own" = "$also" ] && grep -q '\[' <<<"$own" && grep -q '<p>Model 2, <code>other</code>' seeds/results.html
result "has the same figures and intervals there"

ends 0 "seeds with controls of their own" eval -m tiny --also other --pos other --pos tiny --neg tiny --neg other --data dev=dev.jsonl \
    --conditions gist,pos_control,neg_control -n 8 -o several
cmp -s several/dev.gist.k1.csv seeds/dev.gist.k1.csv && cmp -s several/dev.pos_control.k1.csv three/dev.pos_control.k1.csv &&
    ! cmp -s several/dev.pos_control.k1.csv several/dev.pos_control.k1.model2.csv && grep -q '"pos_control": \[' several/results.json
result "each answers in its place"
ends 0 "seeds with one control" eval -m tiny --also other --neg other --data dev=dev.jsonl --conditions gist,neg_control -n 8 -o shared
cmp -s shared/dev.neg_control.k1.csv several/dev.neg_control.k1.model2.csv &&
    cmp -s shared/dev.neg_control.k1.csv shared/dev.neg_control.k1.model2.csv
result "which answers for each of them"

# ---- resuming ------------------------------------------------------------------------------------------------------

ends 1 "a run that fails late" eval -m tiny --neg none --data dev=dev.jsonl --conditions full,gist,none,neg_control -k 1,2 -n 8 -o again --other-gist
check "leaves its answers" test "$(grep -c '^{' again/answers.jsonl)" -gt 20
cp again/answers.jsonl whole.jsonl
ends 2 "which are not thrown away" eval -m tiny --data dev=dev.jsonl --conditions full,gist,none -k 1,2 -n 8 -o again
says "--resume goes on with it" "and the way on is told"
printf '{"key":"00' >>again/answers.jsonl # killed while writing
run eval -m tiny --data dev=dev.jsonl --conditions full,gist,none -k 1,2 -n 8 -o again --other-gist --resume --json
says "$(wc -l <whole.jsonl) answers are there already" "a line cut short is passed over"
mv out resumed.json
ends 0 "one go" eval -m tiny --data dev=dev.jsonl --conditions full,gist,none -k 1,2 -n 8 -o onego --other-gist --json
cmp -s out resumed.json && cmp -s onego/dev.other_gist.k2.csv again/dev.other_gist.k2.csv && cmp -s onego/results.md again/results.md
result "gives what the resumed run gave"
check "a run that ends leaves no journal" test ! -e again/answers.jsonl
sed 's/"text":"[^"]*"/"text":"told"/' whole.jsonl >again/answers.jsonl
run eval -m tiny --data dev=dev.jsonl --conditions full,gist,none -k 1,2 -n 8 -o again --other-gist --resume
check "answers are taken from the journal" grep -q ',told,' again/dev.gist.k2.csv
sed 's/"text":"[^"]*"/"text":"told"/' whole.jsonl >again/answers.jsonl
run eval -m other --data dev=dev.jsonl --conditions full,gist,none -k 1,2 -n 8 -o again --other-gist --resume
! grep -q ',told,' again/dev.gist.k2.csv
result "but not another model's"
cp whole.jsonl again/answers.jsonl
sed -i '3s/"key"/"kex"/' again/answers.jsonl
ends 1 "a journal with a strange line" eval -m tiny --data dev=dev.jsonl -n 8 -o again --resume
says "answers.jsonl:3: no \"key\" of 32 hex digits" "is named with file and line"

# ---- controls, groups, the curve -----------------------------------------------------------------------------------

for i in 1 2 3; do
    printf '{"instruction": "say the number %s to everybody, please", "input": "one", "output": "no", "was": "%s", "kind": "fact"}\n' $i "$i"
    printf '{"instruction": "say the number %s to everybody, please", "input": "two", "output": "no", "kind": "<tool> & more"}\n' $i
done >edited.jsonl
ends 0 "the controls of a sceptic" eval -m tiny --data dev=edited.jsonl --conditions full,gist,none,tfidf_k -k 1,2,4 --other-gist \
    --by kind --ratio 10 --ratio 3,26 -n 4 -o sceptic --cached-check --kv f16
for c in other_gist.k1 other_gist.k4 tfidf.k1 tfidf.k4; do check "predictions of $c" test -s "sceptic/dev.$c.csv"; done
for c in gist.10x gist.3x gist.26x; do prints "$c" "a row of $c"; done
prints "stale %" "answers from before the edit are counted"
prints "dev by kind" "scores by kind"
prints "kind=<tool> & more" "each of them"
! cmp -s sceptic/dev.gist.k4.csv sceptic/dev.other_gist.k4.csv
result "another prompt's gist answers otherwise"
check "the curve as data" grep -q '^from,to,factor,prompts,answers,exact,' sceptic/dev.retention.csv
grep -q '"by": {' sceptic/results.json && grep -q '"curve": \[' sceptic/results.json && grep -q '"value": "fact"' sceptic/results.json
result "groups and curve in results.json"
grep -q '"kv": "f16"' sceptic/results.json && ! grep -q '"kv": "f16"' res/results.json
result "the type of keys and values"
grep -q '### By kind' sceptic/results.md && grep -q '### By compression factor' sceptic/results.md
result "and in results.md"
grep -q '&lt;tool&gt; &amp; more' sceptic/results.html && ! grep -q '<tool>' sceptic/results.html
result "and, escaped, in results.html"

run generate -m tiny -p "say the number 1 to everybody, please" -i one -n 4 --json
answered=$(sed -n 's/^{"text": \(".*"\), "finish".*/\1/p' out)
for was in "$answered" '"else"'; do
    printf '{"instruction": "say the number 1 to everybody, please", "input": "one", "output": "no", "was": %s}\n' "$was"
done >stale.jsonl
ends 0 "an answer from before the edit" eval -m tiny --data dev=stale.jsonl --conditions full -n 4 --bootstrap 0
[ "$(grep '^dev *full ' out | awk '{ print $NF }')" = 50.0 ]
result "is counted as stale"

# ---- refusals ------------------------------------------------------------------------------------------------------

ends 2 "no data" eval -m tiny
says "--data NAME=FILE is needed" "is named"
ends 2 "data without a name" eval -m tiny --data dev.jsonl
ends 2 "one name twice" eval -m tiny --data a=dev.jsonl --data a=dev.jsonl
ends 2 "a name that leads elsewhere" eval -m tiny --data ../a=dev.jsonl
ends 2 "an unknown condition" eval -m tiny --data dev=dev.jsonl --conditions full,best
says '"best" is none of full' "is named"
ends 2 "a condition twice" eval -m tiny --data dev=dev.jsonl --conditions full,full
ends 2 "three seeds and two control models" eval -m tiny --also other --also other --neg other --neg other --data dev=dev.jsonl
says "--neg is given 2 times for 3 models" "is told"
ends 2 "--resume without a place" eval -m tiny --data dev=dev.jsonl --resume
ends 2 "a length for a split that is not there" eval -m tiny --data dev=dev.jsonl --label-tokens human=768
ends 2 "a member that no row has" eval -m tiny --data dev=dev.jsonl --by nothing -n 2
says "--by nothing: no row has a string of this name" "is named"
ends 2 "another gist where there is one prompt" eval -m tiny --data dev=short.jsonl --conditions gist --other-gist -n 2
says "needs two prompts" "is refused"
ends 2 "a ratio that is none" eval -m tiny --data dev=dev.jsonl --ratio 0
ends 2 "no count" eval -m tiny --data dev=dev.jsonl -k 1,x
ends 2 "more tokens than the context" eval -m tiny --data dev=dev.jsonl --max-tokens 4096
printf '{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n' >bad.jsonl
ends 1 "a row without an output" eval -m tiny --data dev=bad.jsonl
says 'bad.jsonl:2: "output" is missing' "is named with file and line"
ends 1 "a control model that is not there" eval -m tiny --neg none --data dev=dev.jsonl --conditions gist,neg_control -n 4 -o kept
check "what was answered before is kept" test -s kept/dev.gist.k1.csv
done_testing
