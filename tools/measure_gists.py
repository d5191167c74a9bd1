#!/usr/bin/env python3
"""What a narrow cache and composition cost a gist model (docs/results/demo.md).

    python tools/measure_gists.py kv      --gist build/release/gist -m models/demo --data unseen.jsonl --prompts 100
    python tools/measure_gists.py compose --gist build/release/gist -m models/demo --data unseen.jsonl --prompts 100

kv:       KL(f32 || T) of the next token, for T in bf16, f16, q8_0, over the tokens of the right answers behind each
          prompt's gist (2 inputs a prompt); what the types cost in right answers tells `gist eval --kv T`.
compose:  gists of prompts 2i and 2i + 1 attached one behind the other, and each alone: right answers to the inputs of the
          first and of the second (6 inputs a prompt).

k is the largest of 1, 2, 4, 8, 16 that compresses a prompt tenfold.  Needs only the Python standard library.
"""
import argparse
import math
import os
import random
import tempfile

from gist_program import compress, is_right, read_tasks, run, run_json


def mean_interval(values, seed):
    """Mean and 95 % of its bootstrap; values of a prompt come as one list."""
    r = random.Random(seed)
    mean = lambda groups: sum(map(sum, groups)) / sum(map(len, groups))
    draws = sorted(mean([r.choice(values) for _ in values]) for _ in range(1000))
    return mean(values), draws[25], draws[974]


# ---- number types ----

def log_softmax(x):
    most = max(x)
    total = most + math.log(sum(math.exp(v - most) for v in x))
    return [v - total for v in x]


def distributions(args, gist, ids):
    """Log-probabilities behind every token."""
    out = run_json(args.gist, "logits", "-m", args.model, "-g", gist, "--ids", ",".join(map(str, ids)), "--all", "--top", 0)
    return [log_softmax(row["logits"]) for row in out["rows"]]


def tokens(args, text):
    return [int(line) for line in run(args.gist, "tokenize", "-m", args.model, text).split()]


def kv(args):
    types = ("bf16", "f16", "q8_0")
    kl = {t: [] for t in types}
    same = {t: [] for t in types}
    with tempfile.TemporaryDirectory() as work:
        for prompt, rows in read_tasks(args.data, args.prompts):
            gist = {t: os.path.join(work, t) for t in ("f32",) + types}
            for t, path in gist.items():
                compress(args.gist, args.model, prompt, path, t)
            for t in types:
                kl[t].append([])
                same[t].append([])
            for row in rows[:2]:
                # The template's text behind a gist; the answer's rows are the last ones.
                front = tokens(args, f"\nInput: {row['input']}\nOutput:")
                answer = tokens(args, " " + row["output"])
                reference = distributions(args, gist["f32"], front + answer)[len(front) - 1:]
                for t in types:
                    other = distributions(args, gist[t], front + answer)[len(front) - 1:]
                    for a, b in zip(reference, other):
                        kl[t][-1].append(sum(math.exp(x) * (x - y) for x, y in zip(a, b)))
                        same[t][-1].append(a.index(max(a)) == b.index(max(b)))
    for t in types:
        mean, low, high = mean_interval(kl[t], args.seed)
        agree = sum(map(sum, same[t])) / sum(map(len, same[t]))
        print(f"KL(f32 || {t}) {mean:.2e} [{low:.2e}, {high:.2e}] nats, most {max(map(max, kl[t])):.2e}, the same first "
              f"token {100 * agree:.2f} %, {sum(map(len, kl[t]))} tokens")


# ---- composition ----

def ask(args, rows, *gists):
    right = []
    for row in rows:
        front = [x for g in gists for x in ("-g", g)]
        a = run_json(args.gist, "generate", "-m", args.model, *front, "-i", row["input"], "-n", 24)
        right.append(is_right(a, row))
    return right


def compose(args):
    tasks = read_tasks(args.data, args.prompts)
    alone, first, second = [], [], []
    with tempfile.TemporaryDirectory() as work:
        for i in range(0, len(tasks) - 1, 2):
            g = [os.path.join(work, str(j)) for j in (0, 1)]
            for j in (0, 1):
                compress(args.gist, args.model, tasks[i + j][0], g[j])
            rows = [tasks[i + j][1][:6] for j in (0, 1)]
            alone.append(ask(args, rows[0], g[0]) + ask(args, rows[1], g[1]))
            first.append(ask(args, rows[0], *g))
            second.append(ask(args, rows[1], *g))
    for name, values in (("alone", alone), ("of the first", first), ("of the second", second)):
        mean, low, high = mean_interval(values, args.seed)
        print(f"{name}: {100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {sum(map(len, values))} inputs")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["kv", "compose"])
    p.add_argument("--gist", default="build/release/gist", help="the program")
    p.add_argument("-m", "--model", required=True)
    p.add_argument("--data", required=True, help="rows {instruction, input, output}, those of a prompt together")
    p.add_argument("--prompts", type=int, default=100)
    p.add_argument("--seed", type=int, default=1, help="of the resamples")
    args = p.parse_args()
    {"kv": kv, "compose": compose}[args.what](args)


if __name__ == "__main__":
    main()
