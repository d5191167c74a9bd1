#!/bin/bash
# test_demo_data.sh - the demonstration's data: the same bytes for the same seed, splits that share nothing, answers that
# follow, lengths and guessability within bounds, a vocabulary that our tokenizer reads, the prompts written by hand.
#
#     GIST_BUILD=build/release bash tests/test_demo_data.sh        TAP on standard output; tests/run sets GIST_BUILD
set -u
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C.UTF-8
demo=${GIST_BUILD:-build/release}/gist-demo
case $demo in /*) ;; *) demo=$PWD/$demo ;; esac
hand=$PWD/demo/data/human.jsonl
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

n=0
check() { # NAME COMMAND...
    local name=$1
    shift
    n=$((n + 1))
    if "$@" >out 2>&1; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        tail -n 20 out | sed 's/^/# /'
    fi
}
fails() { # STATUS TEXT COMMAND...: ends with this status and says this
    local status=$1 text=$2 rc
    shift 2
    "$@" >said 2>&1
    rc=$?
    cat said
    [ $rc -eq "$status" ] && grep -qF -e "$text" said
}
data() { "$demo" data "$@"; }

# ---- drawing -------------------------------------------------------------------------------------------------------

check "training rows" data --prompts 1500 --seed 3 -o train.jsonl
check "seen rows" data --split seen --prompts 1500 --seed 3 -o seen.jsonl
check "dev rows" data --split dev --prompts 250 --seed 4 -o dev.jsonl
check "unseen rows" data --split unseen --prompts 500 --seed 5 -o unseen.jsonl
same_bytes() { data --prompts 1500 --seed 3 | cmp - train.jsonl; }
check "the same seed gives the same bytes, to a file or a pipe" same_bytes
beginning() { data --prompts 100 --seed 3 >part && cmp part <(head -n "$(wc -l <part)" train.jsonl); }
check "fewer prompts are the first ones of more" beginning
prompts() { cut -d'"' -f4 "$1"; }
other_seed() { data --prompts 100 --seed 6 >other && ! prompts other | grep -qxFf <(prompts part); }
check "another seed gives other prompts" other_seed
known() { [ "$(data --split unseen --seed 1 --prompts 20 | cksum)" = "2340625 198885" ]; }
check "the first 20 unseen prompts are those that results were reported on" known
count() { [ "$(grep -o '"prompt_id": "[^"]*"' unseen.jsonl | uniq | sort -u | wc -l)" -eq 500 ]; }
check "500 unseen prompts" count

check "edited prompts" data --split unseen --prompts 200 --seed 5 --edited -o edited.jsonl
edited() { # nearly every prompt can be edited, and the answer changes
    [ "$(grep -o '"prompt_id": "[^"]*"' edited.jsonl | uniq | sort -u | wc -l)" -ge 190 ] &&
        awk -F'"' '$12 == $16 { print; bad = 1 } END { exit bad }' edited.jsonl
}
check "... whose answers are others than before" edited
check "lists cannot be edited" fails 2 "--edited is for" "$demo" data --split list --edited

check "lists of words" data --split list --prompts 500 --seed 3 -o list.jsonl
lists() {
    data --split list --prompts 500 --seed 3 | cmp - list.jsonl &&
        awk -F'"' '{ rows++ } index($4, $12) == 0 || $16 != "list" { print; bad = 1 } END { exit bad || rows < 2000 }' \
            list.jsonl
}
check "... are the same again, and every answer stands in its list" lists
check "lists of phrases" data --split phrases --prompts 500 --seed 3 -o list.jsonl
phrases() { # answers of one word are the more common ones, by tables of one row and of few words
    data --split phrases --prompts 500 --seed 3 | cmp - list.jsonl &&
        awk -F'"' 'index($4, $12) == 0 { print; bad = 1 } $20 ~ /key|value/ { rows++; several += $12 ~ / / }
            END { exit bad || rows < 2000 || several < rows / 3 }' list.jsonl
}
check "... are the same again, every answer stands in its list, and a third of them have several words" phrases

# ---- checking ------------------------------------------------------------------------------------------------------

check "rows are sound, splits share no name, entity, triple or prompt; seen inputs are new" \
    "$demo" check --train train.jsonl --seen seen.jsonl dev.jsonl unseen.jsonl
check "a name in two files is found" fails 1 "is in the other file too" "$demo" check --train train.jsonl other
head -n 1 train.jsonl | sed 's/"instruction": "[^"]*"/"instruction": "nothing of the kind"/' >broken
check "an answer that does not follow is found, or a prompt that is too short" fails 1 broken:1 "$demo" check broken
# The first plain price: its answer is changed to another number.
grep '"sub": "price", "style": "none"' train.jsonl | head -n 1 | sed 's/"output": "[0-9]*/"output": "1000/' >wrong
check "a wrong answer is found" fails 1 "does not follow" "$demo" check wrong
head -n 3 train.jsonl >leak
check "a training input among the seen ones is found" fails 1 "is in training" \
    "$demo" check --train train.jsonl --seen leak
head -c 3000 train.jsonl >cut
check "a file that was cut off is found" fails 1 "no JSON" "$demo" check cut
check "the prompts written by hand are sound" "$demo" check --hand "$hand"
many() { [ "$(grep -o '"prompt_id": "[^"]*"' "$hand" | sort -u | wc -l)" -ge 60 ] && ! grep -nP '[^\x00-\x7f]' "$hand"; }
check "... 60 or more, in plain ASCII" many

# ---- vocabulary and numbers ----------------------------------------------------------------------------------------

check "a vocabulary" "$demo" vocab -o words --seed 3 --prompts 1500 --size 3000
again() { "$demo" vocab -o again --seed 3 --prompts 1500 --size 3000 && cmp words/tokenizer.json again/tokenizer.json; }
check "... is the same again" again
statistics() {
    "$demo" stats --tokenizer words train.jsonl >train.txt && "$demo" stats --tokenizer words unseen.jsonl >unseen.txt
}
check "statistics" statistics
field() { awk -v key="$2" -v i="$3" 'index($0, key) { sub(".*" key, ""); split($0, a, /[ ,]+/); print a[i + 1]; exit }' "$1"; }
lengths() { # least and most tokens of a prompt; this vocabulary is smaller than the one in use
    local f
    for f in train.txt unseen.txt; do
        awk '/tokens of its part/ { found = 1; sub(/.*template/, ""); gsub(/[^0-9. ]/, ""); ok = $2 >= 60 && $3 <= 275 }
            END { exit !(found && ok) }' $f || return 1
    done
}
check "prompts have 60 to 275 tokens in a vocabulary of 3000" lengths
alike() {
    local a b
    a=$(field train.txt "in the template" 1) b=$(field unseen.txt "in the template" 1)
    echo "train $a, unseen $b tokens per prompt"
    awk -v a="$a" -v b="$b" 'BEGIN { exit !(a > 60 && b > 60 && b / a < 1.05 && a / b < 1.05) }'
}
check "unseen prompts take as many tokens as training prompts, within 5 %" alike
guess() { # "  all  ROWS  PERCENT %  ..."
    cat train.txt
    awk '$1 == "all" { found = 1; ok = $3 < 10 } END { exit !(found && ok) }' train.txt
}
check "the commonest answer to every question is right for fewer than 10 % of inputs" guess
bits() { awk '/bits drawn/ { found = 1; ok = $6 > 50 && $6 < 250 } END { exit !(found && ok) }' train.txt; }
check "bits of drawn values are recorded" bits

# ---- usage ---------------------------------------------------------------------------------------------------------

check "no command" fails 2 "gist-demo data" "$demo"
check "help" fails 0 "gist-demo data" "$demo" --help
check "help of a command" fails 0 "gist-demo data" "$demo" vocab --help
check "an unknown command" fails 2 "no such command" "$demo" bake
check "an unknown split" fails 2 "no split" "$demo" data --split cake
check "a number that is none" fails 2 "not a number" "$demo" data --prompts many
check "a file that is not there" fails 1 "nowhere" "$demo" check nowhere
check "a place that cannot be written" fails 1 "nowhere" "$demo" data --prompts 1 -o nowhere/file
echo "1..$n"
