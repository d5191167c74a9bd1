#!/bin/sh
# demo.sh - what `make demo` shows: a prompt compressed, the gist described, an answer from the gist alone.
#
#     sh examples/demo.sh GIST [MODEL]
#
# Without MODEL it takes the tiny model of the tests.  Its weights are random: it shows the mechanics, and what it says is
# noise.  No trained demonstration model exists yet.
set -eu
gist=$1
model=${2:-}
if [ -z "$model" ]; then
    model=tests/data/llama/mha-f32
    echo "A tiny random model ($model) shows the mechanics. It was never trained: its answers are noise."
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/prompt.txt" <<'PROMPT'
You are the assistant of a small shop. We open at nine on weekdays and at noon on Sundays. Be short and friendly.
PROMPT

show() { # print a command as a user would type it, then run it
    printf '\n$ gist'
    for word in "$@"; do
        case $word in *[[:space:]]*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
    done | sed "s|$dir/||g"
    printf '\n'
    "$gist" "$@"
}
show compress -m "$model" -f "$dir/prompt.txt" -k 4 -o "$dir/shop.gist"
show show "$dir/shop.gist"
show generate -m "$model" -g "$dir/shop.gist" -i "When do you open on Sunday?" -n 16
