#!/bin/bash
# test_convert_cli.sh - gist convert as a user meets it: there and back, every type, the same answers, refusals that leave
# nothing behind.
#
#     GIST=build/release/gist bash tests/test_convert_cli.sh      TAP on standard output; tests/run sets GIST, GIST_BUILD
#
# The model is tiny and random (dev/make_tiny.c, made here); tools/check_gguf.py asks other programs about the files.
. "$(dirname "$0")/cli_common.sh"
tiny_models
./make_tiny tiny && ./make_tiny wide --f32 || exit 1
text="the hen and the tin lid"

convert() { # ARGUMENTS: output in out and err, status in $rc
    "$gist" convert "$@" >out 2>err </dev/null
    rc=$?
}
ends() { # STATUS TEXT NAME ARGUMENTS...: ends so, and says so on stderr (0: nothing but warnings)
    local want=$1 says=$2 name=$3
    shift 3
    convert "$@"
    check "$name" test "$rc" -eq "$want"
    [ "$want" -eq 0 ] || check "$name: said why" grep -qF -- "$says" err
    [ "$want" -eq 0 ] || check "$name: no result" test ! -s out
}
absent() { ! ls -d "$1"* >/dev/null 2>&1; }
logits() { "$gist" logits -m "$1" -q --type f32 --kv f32 --top 0 --all --json -p "$text" 2>err | sed 's/"\(seconds\|model\)": [^,}]*//g'; }
same_logits() { [ -n "$(logits "$1")" ] && [ "$(logits "$1")" = "$(logits "$2")" ]; }
same_end() { [ -s "$2" ] && cmp -s <(tail -c "$1" "$2") <(tail -c "$1" "$3"); } # BYTES A B: the tensors

# ---- there and back ------------------------------------------------------------------------------------------------

ends 0 "" "directory to GGUF" tiny tiny.gguf
check "a line of summary" grep -q '^tiny.gguf: llama, 39 tensors, .*bf16' out
check "no messages" test ! -s err
check "same logits, bit for bit" same_logits tiny tiny.gguf
ends 0 "" "GGUF to directory" tiny.gguf back
check "same logits again" same_logits tiny back
check "config, weights, tokenizer, generation config" test -s back/config.json -a -s back/model.safetensors -a \
    -s back/tokenizer.json -a -s back/tokenizer_config.json -a -s back/generation_config.json
ends 0 "" "and back to GGUF" back again.gguf
check "the same tensors" same_end 360000 tiny.gguf again.gguf
check "the same ids" test "$("$gist" tokenize -m tiny "$text <GIST> x")" = \
    "$("$gist" tokenize -m back "$text <GIST> x")"
ends 0 "" "f32 weights" wide wide.gguf
check "same logits of f32" same_logits wide wide.gguf
ends 0 "" "GGUF to GGUF" wide.gguf copy.gguf
check "nothing changes" cmp -s wide.gguf copy.gguf

# ---- types ---------------------------------------------------------------------------------------------------------

for type in f32 bf16 f16 q8_0 q4_0 q4_K; do
    ends 0 "" "to $type" wide "$type.gguf" --type $type --json
    want=$type
    [ $type = q4_K ] && want=q8_0 # rows of 64 are no multiple of 256
    check "$type: JSON" grep -q "^{\"in\": \"wide\", \"out\": \"$type.gguf\", \"family\": \"llama\", \"type\": \"$want\"" out
    ends 0 "" "$type from GGUF" wide.gguf "$type-2.gguf" --type $type
    check "$type: the same from GGUF" same_end 100000 $type.gguf $type-2.gguf
    ends 0 "" "$type on one thread" wide "$type-3.gguf" --type $type -t 1
    check "$type: threads do not show" cmp -s $type.gguf $type-3.gguf
    ends 0 "" "$type to a directory" $type.gguf "dir-$type"
    check "$type: the same logits from either" same_logits $type.gguf "dir-$type"
done
convert wide once.gguf --type q4_K
check "a fallback is said" grep -qF 'warning: model.embed_tokens.weight has rows of 64, no multiple of 256' err
check "once" test "$(grep -c 'no multiple of' err)" -eq 1
convert wide once.gguf --type q4_K --force -q
check "quiet" test ! -s err
ends 0 "" "blocks widen exactly by default" q8_0.gguf exact
check "into f32" grep -q '"torch_dtype": "float32"\|"dtype": "float32"' exact/config.json
ends 0 "" "or become bf16" q8_0.gguf half --type bf16
check "as asked" grep -q 'bfloat16' half/config.json

# ---- refusals ------------------------------------------------------------------------------------------------------

ends 1 "tiny.gguf exists already (--force replaces it)" "an existing file" wide tiny.gguf
check "stays" same_logits tiny tiny.gguf
ends 0 "" "--force" wide tiny.gguf --force
check "replaces it" cmp -s wide.gguf tiny.gguf
ends 1 "back exists already" "an existing directory" wide.gguf back
ends 0 "" "--force on a directory" wide.gguf back --force
check "replaces the model" same_logits wide back
check "leaves no temporary" absent back.tmp
mkdir empty
ends 0 "" "an empty directory is no obstacle" wide.gguf empty/
check "and is filled" test -s empty/config.json
ends 0 "" "directory to directory" wide other
cp -r wide noted && sed 's/^{/{"gist_training": {"input_loss": true},/' wide/config.json >noted/config.json
ends 0 "" "a directory with a note of training" noted noted-too
check "keeps it" grep -q '"input_loss": true' noted-too/config.json
check "the same logits" same_logits wide other
ends 2 "a directory's weights are f32, bf16 or f16, not q8_0" "blocks in a directory" wide.gguf nowhere --type q8_0
ends 2 "" "a type that is not written" wide nowhere.gguf --type q6_K
ends 2 "" "no arguments"
ends 2 "" "one argument" wide
ends 1 "no/such: no such file" "no input" no/such nowhere.gguf
echo hello >hello.txt
ends 1 "neither a model directory nor a GGUF file" "some file" hello.txt nowhere.gguf
ends 1 "is not a directory" "a directory onto a file" wide.gguf hello.txt
mkdir taken.gguf
ends 1 "is a directory" "a file onto a directory" wide taken.gguf --force
for at in 0 3 20 100 5000 100000; do
    head -c $at wide.gguf >cut.gguf
    ends 1 "cut.gguf" "cut at $at" cut.gguf nowhere
done
rm -rf broken && cp -r wide broken && rm broken/tokenizer.json
ends 1 "broken" "no tokenizer" broken nowhere.gguf
sed -i 's/"num_hidden_layers": 4/"num_hidden_layers": 5/' wide/config.json
ends 1 "model.layers.4.input_layernorm.weight is missing" "a tensor is missing" wide nowhere.gguf
ends 1 "cannot create" "no such place" wide.gguf no/such/place
for out in nowhere nowhere.gguf; do
    (
        ulimit -f 100
        "$gist" convert wide.gguf $out >out 2>err
        echo $? >rc
    )
    check "a full disk, $out" grep -q 1 rc
    check "a full disk, $out: said why" grep -q 'cannot write' err
done
check "nothing is left of all these" absent nowhere

# ---- weight diffs, files of torch.save ------------------------------------------------------------------------------

fix=$root/tests/data/torchbin
ends 0 "" "a weight diff and its base" --base "$fix/base" "$fix/diff" full
check "rows that the base lacks" grep -q '^base  *1 rows of the vocabulary are not in the base' out
check "the sum" grep -q '^sum  *47\.1767 over all weights' out
check "and with the buffers" grep -q ' 49\.1967 with the 2 rotary inv_freq buffers (2 in the base, 0 worked out' out
check "nothing to compare with" grep -q 'publish sums of LLaMA-7B models only' out
check "the model it was made from" same_logits full "$root/tests/data/llama/mha-f32"
check "its tokenizer has <GIST>" grep -q '"content": "<GIST>"' full/tokenizer_config.json
ends 0 "" "to GGUF at once" --base "$fix/base" "$fix/diff" full.gguf --json
check "the same weights" same_logits full full.gguf
check "JSON" grep -q '"missing_rows": 1, "sum": 47\.1767.*"sum_with_inv_freq": 49\.1967.*"inv_freq": 2' out
ends 0 "" "in shards" --base "$fix/base" "$fix/diff" parts --shard 1 --force
ends 0 "" "a directory of torch.save" "$fix/base" plain
check "is read as its safetensors are" same_logits "$fix/base" plain
check "in its type" grep -q '"torch_dtype": "float16"' plain/config.json
ends 1 "the base has num_hidden_layers 5, the diff 2" "another base" --base wide "$fix/diff" nowhere
ends 1 "is a Hugging Face directory" "a GGUF base" --base wide.gguf "$fix/diff" nowhere
ends 1 "is a Hugging Face directory" "a GGUF diff" --base "$fix/base" wide.gguf nowhere
mkdir evil && cp "$fix"/base/*.json "$fix"/base/tokenizer.model evil && cp "$fix/call.bin" evil/pytorch_model.bin
ends 1 "imports posix.system, which is refused" "a pickle that calls" evil nowhere.gguf
check "and nothing was run" sh -c '! grep -q "^this must" out err'
printf '{"instruction": "the hen", "input": "the sun", "output": "the hat"}\n' >data.jsonl
for from in "$fix/base" plain; do
    "$gist" train --init "$from" --data data.jsonl --batch 1 --steps 2 --max-length 64 -q -t 1 -o "run-$(basename "$from")" >out 2>err </dev/null
done
check "training begins from it as from its safetensors" cmp run-base/model.safetensors run-plain/model.safetensors
check "nothing is left of refusals" absent nowhere

check "help" sh -c "'$gist' help convert | grep -q -- '--type'"
done_testing
