#!/bin/bash
# test_cli.sh - the commands as a user meets them: happy paths, JSON, usage errors (2), failures (1, nothing written),
# text from arguments, files and standard input, and that results do not depend on threads.
#
#     GIST=build/release/gist bash tests/test_cli.sh        TAP on standard output; tests/run sets GIST and GIST_BUILD
#
# The models are tiny and random (dev/make_tiny.c, made here), so nothing is asked of what they answer.
. "$(dirname "$0")/cli_common.sh"
tiny_models
./make_tiny tiny && ./make_tiny other --seed 2 && ./make_tiny short --layers 2 && ./make_tiny small --context 64 &&
    ./make_tiny bare --no-gist || exit 1
printf 'You answer for a small shop. It opens at nine, on Sundays at noon.\n' >prompt.txt
prompt=$(cat prompt.txt)
input="When do you open on Sunday?"

# ---- helpers -------------------------------------------------------------------------------------------------------

absent() { # FILE NAME: neither the file nor a temporary of it is left
    ! ls "$1"* >/dev/null 2>&1
    result "$2"
}
# One line, and what remains when strings, numbers and words, then lists and objects from the inside out, become v.
is_json() {
    [ "$(wc -l <"$1")" -eq 1 ] || return 1
    [ "$(LC_ALL=C sed -E 's/"([^"\\]|\\.)*"/s/g
        s/-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?/v/g; s/true|false|null/v/g
        :a
        s/\[([vs](, [vs])*)?\]/v/g; s/\{(s: [vs](, s: [vs])*)?\}/v/g
        ta' "$1")" = v ]
}
json() { # NAME ARGUMENTS...: gist succeeds and prints one JSON object
    local name=$1
    shift
    run "$@"
    [ $rc -eq 0 ] && is_json out
    result "$name"
}
ids() { # the list of generated ids
    sed 's/.*"ids": \(\[[^]]*\]\).*/\1/' out
}

# ---- help, version, usage ------------------------------------------------------------------------------------------

ends 0 "gist --version" --version
grep -qE '^gist [0-9]+\.[0-9]+\.[0-9]+$' out
result "... prints one"
ends 0 "gist --help" --help
for command in compress generate chat show tokenize logits "bench machine" "bench model" "bench batch" "bench gist"; do
    grep -q "^  $command " out
    result "gist --help lists $command"
done
for command in compress generate chat show tokenize logits "bench machine" "bench model" "bench batch" "bench gist"; do
    ends 0 "gist help $command" help $command
    cp out help
    grep -q '^Example' out && grep -q "^usage: gist $command " out
    result "... shows usage and an example"
    ends 0 "gist $command --help" $command --help
    cmp -s out help
    result "... is the same"
done
"$gist" >out 2>err
[ $? -eq 2 ] && [ ! -s out ] && grep -q 'usage: gist' err
result "without a command: usage, status 2"
ends 2 "unknown command" genrate
says "did you mean generate" "... with a hint"
ends 2 "bench alone" bench
ends 2 "bench of nothing known" bench nothing
ends 2 "help of nothing known" help nothing
ends 2 "unknown option" generate -m tiny --tempp 1
says "did you mean --temp" "... with a hint"
ends 2 "unknown letter" show -Z
ends 2 "option without its value" generate -m
ends 2 "flag with a value" generate -m tiny --json=1
ends 2 "missing model" compress -p hi -o x.gist
ends 2 "missing output" compress -m tiny -p hi
ends 2 "missing prompt" compress -m tiny -o x.gist
ends 2 "two prompts" compress -m tiny -p hi -f prompt.txt -o x.gist
for k in 0 1025 x 3x "" 99999999999999999999; do
    ends 2 "compress -k '$k'" compress -m tiny -p hi -k "$k" -o x.gist
done
ends 2 "--temp hot" generate -m tiny -i hi --temp hot
ends 2 "--temp nan" generate -m tiny -i hi --temp nan
ends 2 "--top-p 2" generate -m tiny -i hi --top-p 2
ends 2 "--top-p 0" generate -m tiny -i hi --top-p 0
ends 2 "--seed -1" generate -m tiny -i hi --seed -1
ends 2 "--kv of no type" generate -m tiny -i hi --kv int9
says "auto|f32|bf16|f16" "... names the types"
ends 2 "--template of no name" generate -m tiny -i hi --template nothing
ends 2 "generate: nothing to answer" generate -m tiny
ends 2 "generate: gist and prompt" generate -m tiny -g x.gist -p hi
ends 2 "generate: two inputs" generate -m tiny -i hi --input-file prompt.txt
ends 2 "generate: standard input twice" generate -m tiny -f - --input-file -
ends 2 "generate: -k without a prompt" generate -m tiny -i hi -k 2
ends 2 "logits: two sources" logits -m tiny -p hi --ids 1
ends 2 "logits: ids out of the vocabulary" logits -m tiny --ids 1,2,99999
ends 2 "show without a file" show
ends 2 "show with two" show a b
ends 2 "tokenize: text twice" tokenize -m tiny hi -f prompt.txt
absent x.gist "no file came of wrong usage"

# ---- compress and show ---------------------------------------------------------------------------------------------

ends 0 "compress" compress -m tiny -f prompt.txt -k 4 -o shop.gist
for word in "prompt tokens" factor "KV before" "KV after" seconds; do
    grep -q "^$word  *[^ ]" out
    result "... prints $word"
done
"$gist" compress -m tiny -f - -k 4 -o stdin.gist <prompt.txt >out 2>err && cmp -s shop.gist stdin.gist
result "a prompt from standard input gives the same file"
run compress -m tiny -p "$prompt" -k 4 -o argument.gist -q
[ $rc -eq 0 ] && cmp -s shop.gist argument.gist && [ ! -s out ] && [ ! -s err ]
result "a prompt from an argument too; -q prints nothing"
json "compress --json" compress -m tiny -p="$prompt" -k4 -o other.gist --json
json "compress --json, long options" compress --model=tiny --prompt "$prompt" --gists=4 --output other.gist --json
cmp -s shop.gist other.gist
result "... the same file again"
ends 0 "show a gist" show shop.gist
prints "[4,2,16]" "... what is cached"
prints "checksum ok" "... checked"
json "show --json a gist" show shop.gist --json
prints '"gist_tokens": 4' "... its k"
json "show --tensors --json a gist" show --tensors --json shop.gist
prints '"layers.3.value"' "... its tensors"
ends 0 "show a model" show tiny
prints "<GIST> 278" "... its gist token"
json "show --json a model" show tiny --json --tensors
fingerprint=$(sed 's/.*"fingerprint": "\([0-9a-f]*\)"[^"]*$/\1/' out | head -n 1)
run show shop.gist --json
grep -q "\"model_fingerprint\": \"[0-9a-f]\{32\}\"" out
result "a gist names its model"
run show tiny --json -t 1
grep -qF "\"fingerprint\": \"$(sed 's/.*"model_fingerprint": "\([0-9a-f]*\)".*/\1/' <("$gist" show shop.gist --json))\"" out
result "... by the fingerprint that show prints for it"
ends 0 "show a safetensors file" show tiny/model.safetensors
json "show --json a safetensors file" show tiny/model.safetensors --json
ends 0 "compress --rebase" compress -m tiny -f prompt.txt -k 2 -o rebased.gist --rebase
run show rebased.gist
prints "rebased" "... and show says so"
ends 0 "a gist answers when rebased" generate -m tiny -g rebased.gist -i "$input" -n 4
for kv in f32 bf16 f16; do
    json "compress --kv $kv" compress -m tiny -f prompt.txt -o $kv.gist --kv $kv --json
    prints "\"kv\": \"$kv\"" "... is $kv"
    json "... and answers" generate -m tiny -g $kv.gist -i "$input" -n 4 --json
done

# ---- generate ------------------------------------------------------------------------------------------------------

json "generate from a gist" generate -m tiny -g shop.gist -i "$input" -n 12 --json --ignore-eos
ids >gist.ids
prints '"output_tokens": 12' "... as many tokens as asked"
json "generate behind a live gist" generate -m tiny -f prompt.txt -k 4 -i "$input" -n 12 --json --ignore-eos
ids | cmp -s - gist.ids
result "the gist file answers as the full cache under the gist mask"
for threads in 1 2; do
    run generate -m tiny -g shop.gist -i "$input" -n 12 --json --ignore-eos -t $threads
    ids | cmp -s - gist.ids
    result "the same with --threads $threads"
    run compress -m tiny -f prompt.txt -k 4 -o threads.gist -t $threads
    cmp -s shop.gist threads.gist
    result "the same gist with --threads $threads"
    run generate -m tiny -p "$prompt" -i "$input" -n 12 --temp 0.8 --top-k 20 --top-p 0.9 --seed 7 --json -t $threads
    ids >sampled.$threads
done
cmp -s sampled.1 sampled.2
result "a seed names one answer, whatever the threads"
printf '%s\n' "$input" >input.txt
run generate -m tiny -g shop.gist --input-file input.txt -n 12 --json --ignore-eos
ids | cmp -s - gist.ids
result "an input from a file"
"$gist" generate -m tiny -g shop.gist --input-file - -n 12 --json --ignore-eos <input.txt >out 2>err
ids | cmp -s - gist.ids
result "an input from standard input"
run generate -m tiny -p aaaa -k 2 --condition neg_control -i "$input" -n 8 --json --ignore-eos
ids >neg.ids
run generate -m tiny -p zzzz -k 2 --condition neg_control -i "$input" -n 8 --json --ignore-eos
ids | cmp -s - neg.ids
result "neg_control does not know the prompt"
json "pos_control" generate -m tiny -p zzzz -k 2 --condition pos_control -i "$input" -n 8 --json
json "--logprobs --stats --json" generate -m tiny -i "$input" -n 4 --logprobs --stats --json --ignore-eos
prints '"tokens_per_second"' "... has the rate"
ends 0 "--logprobs" generate -m tiny -i "$input" -n 4 --logprobs --ignore-eos
[ "$(wc -l <out)" -eq 4 ] && ! grep -qvP '^\d+\t-?[0-9.e+-]+\t' out
result "... a line per token"
ends 0 "--stats" generate -m tiny -i "$input" -n 4 --stats --ignore-eos
says "tokens/s" "... on standard error"
run generate -m tiny -i "$input" -n 4 --ignore-eos
cp out plain
run generate -m tiny -i "$input" -n 4 --ignore-eos --stats
cmp -s out plain
result "... and the answer is untouched"
[ "$(tail -c 1 plain | wc -l)" -eq 1 ]
result "an answer ends with a line end"
run generate -m tiny -i "$input" -n 60 --json --ignore-eos
letter=$(sed 's/^{"text": "//; s/", "finish.*//; s/\\u....//g; s/\\.//g' out | tr -cd 'a-zA-Z' | cut -c1)
run generate -m tiny -i "$input" -n 60 --json --ignore-eos --stop "$letter" --stop "no such text"
grep -q '"finish": "stop"' out && ! sed 's/", "finish.*//; s/^{"text": "//; s/\\u....//g; s/\\.//g' out | grep -q "${letter:-?}"
result "--stop ends before its text"
ends 0 "no prompt, a position" generate -m tiny -i "$input" --position 30 -n 4
ends 1 "a position beyond the context" generate -m tiny -i "$input" --position 5000 -n 4
run generate -m small -i hi -n 0 --ignore-eos --json
grep -q '"finish": "context"' out
result "-n 0 goes on until the context is full"
for template in raw paper; do
    json "--template $template" generate -m tiny -p "$prompt" -i "$input" --template $template -n 4 --json
done
ends 1 "a template whose tokens the vocabulary lacks" generate -m tiny -i "$input" --template llama3

# ---- tokenize, logits, bench ---------------------------------------------------------------------------------------

ends 0 "tokenize" tokenize -m tiny "on the <GIST> ä"
! grep -qv '^[0-9]*$' out && ! grep -qx 278 out
result "... an id per line; special tokens are text"
run tokenize -m tiny --special "on the <GIST> ä"
grep -qx 278 out
result "... with --special they are found"
run tokenize -m bare --special "on <GIST>"
grep -qx 278 out
result "a model without <GIST> gets it behind its vocabulary"
json "tokenize --json --pieces --bos" tokenize -m tiny/tokenizer.json --json --pieces --bos 'say "ä"\'
printf 'Grüße\n  zwei Zeilen \n' >text
"$gist" tokenize -m tiny <text 2>err | "$gist" tokenize -m tiny --decode -f - >out 2>>err && cmp -s text out
result "text to ids and back, through pipes"
json "tokenize --decode --json" tokenize -m tiny --decode --json "[1, 2 3]"
ends 2 "ids that are none" tokenize -m tiny --decode "1,x"
ends 1 "tokenize: invalid UTF-8" tokenize -m tiny $'a\xff'
ends 0 "logits" logits -m tiny -p "$input" --top 3
[ "$(wc -l <out)" -eq 3 ]
result "... the top 3"
json "logits --json --all" logits -m tiny --ids 1,2,3 --all --json --top 2
json "logits --json behind a gist" logits -m tiny -g shop.gist -p "$input" --json
run logits -m tiny -p "$input" --top 0
[ "$(wc -l <out)" -eq 279 ]
result "logits --top 0 prints the whole vocabulary"
cp out one
run logits -m tiny -p "$input" --top 0 --all -t 1
tail -n 279 out | cut -f 2- | cmp -s - one
result "the last of --all is the same, bit for bit"
json "bench machine --json" bench machine --json --repeat 1 --buffer 64
json "bench model --json" bench model --shape 2,64,128,4,2,128 --prefill 16 --decode 4 --repeat 2 --buffer 64 --json
ends 0 "bench model of a directory" bench model -m tiny --prefill 16 --decode 4 --repeat 1 --buffer 64
prints "from process start to ready" "... with its start-up"
ends 2 "bench model of no shape" bench model --shape round
ends 2 "bench model: a model and a shape" bench model -m tiny --shape llama-7b
ends 1 "bench model longer than the context" bench model -m small --prefill 100 --decode 4 --buffer 64

# ---- failures: status 1, nothing written ---------------------------------------------------------------------------

ends 1 "no such model" compress -m nowhere -p hi -o x.gist
says nowhere "... is named"
ends 1 "a model that is a file" compress -m prompt.txt -p hi -o x.gist
ends 1 "no such prompt file" compress -m tiny -f nowhere.txt -o x.gist
says nowhere.txt "... is named"
ends 1 "no such gist" generate -m tiny -g nowhere.gist -i hi
ends 1 "no such file to show" show nowhere.gist
ends 1 "an empty prompt" compress -m tiny -p "" -o x.gist
ends 1 "a prompt of white space" compress -m tiny -p "  " -o x.gist
: >empty
ends 1 "an empty prompt file" compress -m tiny -f empty -o x.gist
ends 1 "a prompt that is not UTF-8" compress -m tiny -p $'caf\xe9' -o x.gist
ends 1 "an input that is not UTF-8" generate -m tiny -i $'caf\xe9'
ends 1 "a prompt longer than the context" compress -m small -f prompt.txt -o x.gist
ends 1 "a prompt that its gist tokens push over the context" compress -m small -p "short" -k 60 -o x.gist
ends 1 "an output in a directory that is not there" compress -m tiny -p hi -o nowhere/x.gist
absent x.gist "none of them wrote a file"
ends 1 "a gist of another model" generate -m other -g shop.gist -i "$input"
says "another model" "... says so"
ends 0 "... with --force" generate -m other -g shop.gist -i "$input" -n 2 --force
says "another model" "... warns"
ends 0 "... quietly" generate -m other -g shop.gist -i "$input" -n 2 --force -q
[ ! -s err ]
result "... with -q it does not"
ends 1 "a gist of another shape, --force or not" generate -m short -g shop.gist -i "$input" --force
ends 1 "a gist of another tokenizer" generate -m bare -g shop.gist -i "$input"
says "tokenizer" "... says so"
ends 1 "another KV type than the gist's" generate -m tiny -g shop.gist -i "$input" --kv f32
ends 0 "a model without <GIST> compresses" compress -m bare -f prompt.txt -o bare.gist
says "not trained to gist" "... and is warned about"
size=$(wc -c <shop.gist)
cp shop.gist bad.gist
printf '\x55' | dd of=bad.gist bs=1 seek=$((size - 40)) conv=notrunc 2>/dev/null
for command in "show bad.gist" "generate -m tiny -g bad.gist -i hi" "generate -m tiny -g bad.gist -i hi --force"; do
    ends 1 "a corrupt gist: $command" $command
done
says "checksum" "... by its checksum"
bad=
for cut in 0 1 7 8 9 100 $((size / 2)) $((size - 1)); do
    head -c $cut shop.gist >cut.gist
    "$gist" show cut.gist >out 2>err
    { [ $? -eq 1 ] && [ ! -s out ] && grep -q '^gist: ' err; } || bad="$bad $cut"
done
[ -z "$bad" ]
result "a gist cut off${bad:+ at$bad}"
cp -r tiny broken
head -c 3000 tiny/model.safetensors >broken/model.safetensors
ends 1 "a model cut off" generate -m broken -i hi
cp tiny/model.safetensors broken/
echo '{"model_type": "mamba"}' >broken/config.json
ends 1 "another architecture" generate -m broken -i hi
says mamba "... is named"

cp shop.gist full.gist
(ulimit -f 1; "$gist" compress -m tiny -p "$prompt" -k 8 -o full.gist) >out 2>err
[ $? -eq 1 ] && grep -q '^gist: .*full.gist' err && cmp -s shop.gist full.gist && [ "$(ls full.gist* | wc -l)" -eq 1 ]
result "a full disk: status 1, the old file stays, no temporary is left"
if [ -c /dev/full ]; then
    "$gist" tokenize -m tiny "$prompt" >/dev/full 2>err
    [ $? -eq 1 ] && grep -q '^gist: ' err
    result "results that cannot be written"
    "$gist" generate -m tiny -i hi -n 4 --ignore-eos >/dev/full 2>err
    [ $? -eq 1 ] && grep -q '^gist: ' err
    result "an answer that cannot be written"
fi
"$gist" logits -m tiny -p "$prompt" --all --top 0 2>err | head -n 1 >out
[ -s out ] && [ ! -s err ]
result "a reader that leaves early ends us silently"
done_testing
