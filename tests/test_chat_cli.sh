#!/bin/bash
# test_chat_cli.sh - gist chat through a pipe, and the options of answers that generate and chat share: samplers, biases,
# JSON objects, samples, several gists.
#
#     GIST=build/release/gist bash tests/test_chat_cli.sh        TAP on standard output; tests/run sets GIST, GIST_BUILD
#
# The models are tiny and random, so nothing is asked of what they answer; one has a chat template's special tokens.
. "$(dirname "$0")/cli_common.sh"
tiny_models
./make_tiny tiny && ./make_tiny chat --context 256 && ./make_tiny other --seed 2 || exit 1
sed -i 's/<s>/<|im_start|>/g; s/<\/s>/<|im_end|>/g' chat/*.json
"$gist" compress -m chat --template chatml -p "You answer for a shop." -k 2 -q -o a.gist || exit 1
"$gist" compress -m chat --template chatml -p "It opens at nine." -k 3 -q -o b.gist || exit 1
"$gist" compress -m tiny -p "You answer for a shop." -k 2 -q -o paper.gist || exit 1

talk() { # ARGUMENTS...: gist chat on the file `lines`
    last="chat $*  <lines: $(head -c 300 lines | tr '\n' '|')"
    "$gist" chat "$@" <lines >out 2>err
    rc=$?
}
answers() { # N NAME: the last chat ended well with N lines
    [ $rc -eq 0 ] && [ "$(wc -l <out)" -eq "$1" ]
    result "$2"
}
ids() { sed 's/.*"ids": \(\[[^]]*\]\).*/\1/' out; }

# ---- a conversation ------------------------------------------------------------------------------------------------

short="-n 12 --ignore-eos"
printf 'hello\nand then?\nhello\n' >lines
talk -m chat --template chatml $short
answers 3 "an answer a line"
[ ! -s err ] && ! grep -q '^>' out
result "and nothing else"
[ "$(sed -n 1p out)" != "$(sed -n 3p out)" ]
result "what was said before matters"
cp out plain
talk -m chat --template chatml $short -t 1
cmp -s out plain
result "the same from one thread"
printf 'hello\n' >lines
"$gist" generate -m chat --template chatml -i hello $short >one 2>err
talk -m chat --template chatml $short
cmp -s <(sed 's/\\n/\n/g' out) one
result "the first answer is generate's"
printf 'hello\r\n\n\n/reset\nhello\n' >lines
talk -m chat --template chatml $short
answers 2 "empty lines are none, line ends of both kinds"
[ "$(sed -n 1p out)" = "$(sed -n 2p out)" ]
result "/reset forgets"
printf 'hello\n' >lines
talk -m chat --template chatml $short -g a.gist
answers 1 "behind a gist"
cp out behind_a
"$gist" generate -m chat --template chatml -i hello $short -g a.gist >one 2>err
cmp -s <(sed 's/\\n/\n/g' out) one
result "it is generate's"
printf 'hello\n/gist b.gist\nhello\n/gist a.gist b.gist\nhello\n/gist a.gist\nhello\n/gist nope.gist\nhello\n' >lines
talk -m chat --template chatml $short -g a.gist
[ $rc -eq 1 ] && [ "$(wc -l <out)" -eq 5 ] && [ "$(sort -u out | wc -l)" -ge 4 ]
result "/gist: other answers; one that fails makes the status 1"
cmp -s <(sed -n 1p out) behind_a && cmp -s <(sed -n 4p out) behind_a && [ "$(sed -n 5p out)" != "" ]
result "and back; the one that failed changed nothing in front"
says "nope.gist: No such file" "it names the file"
says "5 gist tokens in front" "two gists are one behind another"
"$gist" generate -m chat --template chatml -i hello $short -g a.gist -g b.gist >one 2>err
[ "$(sed -n 3p out | sed 's/\\n/\n/g')" = "$(cat one)" ]
result "as in generate"
printf 'hello\n' >lines
talk -m chat --template chatml $short -p "You answer for a shop."
answers 1 "behind a prompt"
! cmp -s out behind_a
result "which is not the gist"

# ---- a full context ------------------------------------------------------------------------------------------------

for i in 1 2 3 4 5 6 7 8; do echo "question number $i, please"; done >lines
talk -m chat --template chatml -n 30 --ignore-eos -p "You answer for a shop."
answers 8 "more turns than the context holds"
says "the context is full: the oldest 1 turn is forgotten" "it says what is forgotten"
printf 'one one one\ntwo two\nthree\n' >lines
talk -m chat --template chatml -n 20 --ignore-eos --ctx 128
grep -q forgotten err
result "a smaller context forgets sooner"
talk -m chat --template chatml -n 20 --ignore-eos --ctx 400
[ $rc -eq 1 ] && grep -q 'context of 400' err
result "a context larger than the model's"
printf '%300s\nhello\n' x | tr ' ' y >lines
talk -m chat --template chatml $short
[ $rc -eq 1 ] && [ "$(wc -l <out)" -eq 2 ] && grep -q 'fit a context' err
result "an input too long for it: said, and the next one is answered"

# ---- commands ------------------------------------------------------------------------------------------------------

printf 'hello\n/stats\n/set\n/set top-k x\n/set top-k 5\n/set nothing 1\n/bogus\n/save\n/save conv.json\n/help\n//x\n/quit\nno\n' >lines
talk -m chat --template chatml $short
answers 2 "/quit ends, //x is an input"
for line in "/reset  " "top-p 1" "top-k takes a whole number from 0 to" "no setting \"nothing\"" "there is no /bogus" \
    "/save needs a file" "1 turn saved in conv.json" "12 tokens, " "ended by length"; do
    says "$line" "it says: $line"
done
grep -q '"role": "user"' conv.json && grep -q '"content": "hello"' conv.json && grep -q '"role": "assistant"' conv.json
result "/save writes the conversation"
printf 'hello\n/set temperature 2\n/reset\nhello\n/set temperature 0\n/reset\nhello\n' >lines
talk -m chat --template chatml $short -q
[ "$(sed -n 1p out)" != "$(sed -n 2p out)" ] && [ "$(sed -n 1p out)" = "$(sed -n 3p out)" ] && [ ! -s err ]
result "/set changes how answers are drawn; -q is quiet"
printf 'hello\n' >lines
talk -m chat --template chatml $short --stats
says "tokens held" "--stats"
printf 'one\ntwo\none\n' >lines
talk -m tiny $short -g paper.gist
answers 3 "a template of one turn"
says "template paper has one turn" "is told"
[ "$(sed -n 1p out)" = "$(sed -n 3p out)" ]
result "every line is a request by itself"
"$gist" compress -m tiny -p "Be brief." -k 2 -q --kv f32 -o wide.gist || exit 1
printf 'one\n/gist wide.gist\none\n' >lines
talk -m tiny $short -p "You answer for a shop." --kv bf16
says "leave the KV type open" "a gist that does not fit the session is refused"
[ "$(wc -l <out)" -eq 2 ] && [ "$(sed -n 1p out)" = "$(sed -n 2p out)" ]
result "and the prompt is still in front"
printf '' >lines
talk -m tiny
answers 0 "no input, no answer"
ends 2 "a gist and a prompt" chat -m tiny -g paper.gist -p x
ends 2 "the prompt from standard input" chat -m tiny -f -
ends 1 "a gist of another model" chat -m other -g paper.gist
says "another model" "is refused"

# ---- answers -------------------------------------------------------------------------------------------------------

gen="generate -m tiny -i hello --ignore-eos -n 24 --json"
ends 0 "greedy" $gen
ids >greedy
for option in "--repeat-penalty 3" "--logit-bias 100=40" "--temp 1 --seed 4" "--repeat-penalty 0.5 --repeat-last -1"; do
    ends 0 "$option" $gen $option
    [ "$(ids)" != "$(cat greedy)" ]
    result "... makes a difference"
done
for option in "--repeat-penalty 3 --repeat-last 0" "--temp 1 --min-p 1" "--temp 1 --top-k 1" "--logit-bias 100=0"; do
    ends 0 "$option" $gen $option
    [ "$(ids)" = "$(cat greedy)" ]
    result "... makes none"
done
ends 0 "a bias that is all" $gen --logit-bias 100=1000
[ "$(ids | tr -d '[] ' | tr , '\n' | sort -u)" = 100 ]
result "draws that token alone"
ends 0 "a bias by text" $gen --logit-bias 'q=1000'
ids >by_text
ends 0 "by its id" $gen --logit-bias "$("$gist" tokenize -m tiny q 2>/dev/null | tail -n 1 | grep -o '[0-9]*' | head -n 1)=1000"
[ "$(ids)" = "$(cat by_text)" ]
result "is the same"
ends 0 "never" $gen --logit-bias "$(tr -d '[' <greedy | cut -d, -f1)=-inf"
[ "$(ids | cut -d, -f1)" != "$(cut -d, -f1 greedy)" ]
result "is never"
for bad in "--logit-bias 5" "--logit-bias =3" "--logit-bias 5=x" "--logit-bias 99999=1" "--logit-bias hello-there=1" \
    "--min-p 2" "--repeat-penalty 0" "--repeat-last -2" "--samples 0"; do
    ends 2 "$bad" $gen $bad
done

ends 0 "--json-object" generate -m tiny -i x -n 200 --temp 1 --seed 3 --json-object --logit-bias '"=6' --logit-bias '}=6'
python=$(command -v python3)
grep -q '}$' out && { [ -z "$python" ] || tr -d '\000' <out | "$python" -c 'import json, sys; assert isinstance(json.load(sys.stdin), dict)'; }
result "is an object"
ends 0 "--json tells how it ended" generate -m tiny -i x -n 200 --temp 1 --seed 3 --json-object --logit-bias '"=6' \
    --logit-bias '}=6' --json
prints '"finish": "json"' "by its brace"

# ---- samples, several gists ----------------------------------------------------------------------------------------

ends 0 "--samples" generate -m tiny -g paper.gist -i hello -n 8 --ignore-eos --temp 1 --seed 10 --samples 3 --json
prints '{"answers": [{' "one object with all"
for i in 0 1 2; do
    "$gist" generate -m tiny -g paper.gist -i hello -n 8 --ignore-eos --temp 1 --seed $((10 + i)) --json >one 2>err
    grep -qF "$(sed 's/.*"ids": \(\[[^]]*\]\).*/\1/' one)" out
    result "sample $i is seed $((10 + i))'s"
done
ends 0 "--samples as text" generate -m tiny -i hello -n 8 --ignore-eos --temp 1 --samples 2
grep -q '^\[1\] ' out && grep -q '^\[2\] ' out
result "are numbered"
ends 2 "--samples --logprobs" generate -m tiny -i hello --samples 2 --logprobs
ends 0 "two gists" generate -m chat --template chatml -i x -n 6 --ignore-eos --json -g a.gist -g b.gist
ids >ab
ends 0 "the other way round" generate -m chat --template chatml -i x -n 6 --ignore-eos --json -g b.gist -g a.gist
[ "$(ids)" != "$(cat ab)" ]
result "is another thing"
ends 1 "gists of two models" generate -m chat --template chatml -g a.gist -g paper.gist
says "paper.gist" "names the stranger"
"$gist" compress -m chat --template chatml -p x --kv f32 -q -o wide.gist
ends 1 "gists of two KV types" generate -m chat --template chatml -g a.gist -g wide.gist
says 'rows of type "f32"' "names the type"

# ---- a gist on standard output -------------------------------------------------------------------------------------

"$gist" compress -m tiny -p "You answer for a shop." -k 2 -o - >piped.gist 2>err
[ $? -eq 0 ] && cmp -s piped.gist paper.gist && grep -q 'prompt tokens' err
result "compress -o - writes the gist to standard output, and talks on the other"
[ ! -e ./- ]
result "no file of that name"
ends 2 "-o - with --json" compress -m tiny -p x -o - --json
last="compress -o - >/dev/full"
"$gist" compress -m tiny -p x -q -o - >/dev/full 2>err
[ $? -eq 1 ] && grep -q 'cannot write' err
result "a full disk"
ends 0 "bench batch" bench batch --shape 1,64,96,4,2,300 --sessions 1,3 --prompt 9 --decode 3 -r 2 --buffer 64 --svg b.svg
grep -q '^ *3 ' out && grep -q '</svg>' b.svg
result "a table and a chart"
ends 0 "bench batch --json" bench batch -m tiny --sessions 2 --prompt 4 --decode 2 -r 1 --buffer 64 --json
prints '"batches": [{"sessions": 2' "one object"
for bad in "--sessions 0" "--sessions 1,,2" "--sessions 1,2x" "--sessions 1000" "--shape x"; do
    ends 2 "bench batch $bad" bench batch $bad
done
done_testing
