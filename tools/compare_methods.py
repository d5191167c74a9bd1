#!/usr/bin/env python3
"""Five ways to give one model many tasks, as the figure that opens the paper lists them, measured (docs/results/methods.md).

    python tools/compare_methods.py --gist build/release/gist -m models/demo --data unseen.jsonl --tasks 40 -o OUT

A task is one prompt of the data, scored on all its inputs.  Learned ways see none of them: the model draws inputs behind
the full prompt and answers them there (gist tune --sample), and every way learns from the same pairs; drawn inputs that
are scored ones too are left out.

    none      no prompt
    full      the whole prompt in front
    lora      an adapter for the task (gist train --lora-rank), no prompt
    prefix    k rows per layer learned from noise (gist tune --init random)
    gist      one forward pass (gist compress)
    tuned     the same rows, then a few steps (gist tune)

Needs only the Python standard library.  OUT/tasks.jsonl has a line per task and goes on where it ended; methods.md and
methods.svg sum up.  One machine, nothing beside it: the times are wall times.
"""
import argparse
import json
import math
import os
import random
import shutil
import statistics
import time

from gist_program import compress, is_right, read_tasks, run, run_json, write_rows

METHODS = ["none", "full", "lora", "prefix", "gist", "tuned"]
TITLES = {"none": "no prompt", "full": "full prompt", "lora": "LoRA for the task", "prefix": "prefix from noise",
          "gist": "gist", "tuned": "gist, tuned"}


def matrix_weights(model):
    """Weights that take part in a product for every token: blocks and head."""
    c = json.load(open(os.path.join(model, "config.json")))
    width, heads = c["hidden_size"], c["num_attention_heads"]
    head = c.get("head_dim") or width // heads
    block = width * head * 2 * (heads + c["num_key_value_heads"]) + 3 * width * c["intermediate_size"]
    return c["num_hidden_layers"] * block + width * c["vocab_size"]


def ask(args, rows, *front):
    """Answers to each row, one process an input: how many are right, median milliseconds to the first token."""
    right, first = 0, []
    for row in rows:
        a = run_json(args.gist, "generate", "-m", args.model, *front, "-i", row["input"], "-n", args.answer_tokens,
                     "--stats")
        right += is_right(a, row)
        first.append(a["stats"]["first_token_ms"])
    return {"right": right, "first_token_ms": statistics.median(first)}


def draw_pairs(args, rows, work):
    """What all learned ways learn from, drawn by the model; the scored inputs are left out.  Pairs, seconds, FLOPs."""
    drawn = os.path.join(work, "drawn.jsonl")
    began = time.monotonic()
    run(args.gist, "tune", "-m", args.model, "-f", os.path.join(work, "prompt.txt"), "-k", 1, "--sample", args.sample,
        "--steps", 1, "--hold-out", 0, "--seed", args.seed, "--save-pairs", drawn, "-o", os.path.join(work, "x.gist"),
        "-q")
    seconds = time.monotonic() - began
    scored = {row["input"].strip() for row in rows}
    with open(drawn, encoding="utf-8") as f:
        pairs = [json.loads(line) for line in f]
    texts = os.path.join(work, "texts.txt")
    with open(texts, "w", encoding="utf-8") as f:
        f.write("".join(f"{p['input']} {p['output']}\n" for p in pairs))
    written = len(run(args.gist, "tokenize", "-m", args.model, "-f", texts).split())
    return [p for p in pairs if p["input"].strip() not in scored], seconds, 2 * matrix_weights(args.model) * written


def measure(args, prompt, rows, work):
    """One task under every method."""
    file = lambda name: os.path.join(work, name)
    weights = matrix_weights(args.model)
    with open(file("prompt.txt"), "w", encoding="utf-8") as f:
        f.write(prompt)
    g = compress(args.gist, args.model, prompt, file("a.gist"))
    tokens, k = g["prompt_tokens"], g["gist_tokens"]
    out = {"inputs": len(rows), "tokens": tokens, "k": k}
    behind = ["--position", tokens + k]  # without a prompt, the input stands where it would behind it
    out["none"] = ask(args, rows, *behind) | {"seconds": 0, "flops": 0, "bytes": 0}
    out["full"] = ask(args, rows, "-f", file("prompt.txt")) | {
        "seconds": g["compress_seconds"] * tokens / (tokens + k), "flops": 2 * weights * tokens,
        "bytes": tokens * g["kv_bytes_per_token"]}
    out["gist"] = ask(args, rows, "-g", file("a.gist")) | {
        "seconds": g["compress_seconds"], "flops": 2 * weights * (tokens + k), "bytes": g["file_bytes"]}

    pairs, seconds, flops = draw_pairs(args, rows, work)
    out["pairs"] = len(pairs)
    write_rows(file("pairs.jsonl"), pairs)
    for name, init, steps, lr in (("prefix", "random", args.prefix_steps, args.prefix_lr),
                                  ("tuned", "gist", args.tune_steps, args.tune_lr)):
        t = run_json(args.gist, "tune", "-m", args.model, "-f", file("prompt.txt"), "-k", k, "--pairs",
                     file("pairs.jsonl"), "--objective", "distill", "--seed", args.seed, "--init", init, "--steps",
                     steps, "--lr", lr, "-o", file(name + ".gist"))
        out[name] = ask(args, rows, "-g", file(name + ".gist")) | {
            "seconds": seconds + t["seconds"], "flops": flops + 4 * weights * t["tokens"],
            "bytes": os.path.getsize(file(name + ".gist"))}

    shutil.rmtree(file("adapter"), ignore_errors=True)
    began = time.monotonic()
    t = run_json(args.gist, "train", "--init", args.model, "--data", file("pairs.jsonl"), "--condition", "none", "-k", k,
                 "--lora-rank", args.rank, "--steps", args.lora_steps, "--lr", args.lora_lr, "--batch", 8, "--seed",
                 args.seed, "--type", "bf16", "-o", file("adapter"))
    out["lora"] = ask(args, rows, "--adapter", file("adapter"), *behind) | {
        "seconds": seconds + time.monotonic() - began, "flops": flops + 4 * weights * t["tokens"],
        "bytes": os.path.getsize(file("adapter/adapter_model.safetensors"))}
    return out


def interval(tasks, method, seed):
    """95 % of the share that is right, tasks resampled."""
    r = random.Random(seed)
    shares = sorted(share([r.choice(tasks) for _ in tasks], method) for _ in range(1000))
    return shares[25], shares[974]


def share(tasks, method):
    return 100 * sum(t[method]["right"] for t in tasks) / sum(t["inputs"] for t in tasks)


def table(tasks, seed):
    median = lambda m, key: statistics.median(t[m][key] for t in tasks)
    lines = ["| way | right, % | seconds per new task | GFLOPs per new task | kept per task, KiB | first token, ms |",
             "|---|---|---|---|---|---|"]
    for m in METHODS:
        low, high = interval(tasks, m, seed)
        lines.append(f"| {TITLES[m]} | {share(tasks, m):.1f} [{low:.1f}, {high:.1f}] | {median(m, 'seconds'):.3g} | "
                     f"{median(m, 'flops') / 1e9:.3g} | {median(m, 'bytes') / 1024:.3g} | "
                     f"{median(m, 'first_token_ms'):.2f} |")
    return "\n".join(lines) + "\n"


def chart(tasks, path):
    """Right answers against seconds per new task, logarithmic; a point for each way that costs something."""
    width, height, left, bottom, top = 720, 400, 60, 50, 20
    points = [(m, statistics.median(t[m]["seconds"] for t in tasks), share(tasks, m)) for m in METHODS if m != "none"]
    low = math.floor(math.log10(min(s for _, s, _ in points)))
    high = math.ceil(math.log10(max(s for _, s, _ in points)))
    x = lambda s: left + (math.log10(s) - low) / (high - low) * (width - left - 130)
    y = lambda v: height - bottom - v / 100 * (height - bottom - top)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
             f'font-size="13"><rect width="{width}" height="{height}" fill="#fff"/>']
    for e in range(low, high + 1):
        parts.append(f'<line x1="{x(10.0 ** e):.1f}" y1="{top}" x2="{x(10.0 ** e):.1f}" y2="{height - bottom}" '
                     f'stroke="#ddd"/><text x="{x(10.0 ** e):.1f}" y="{height - bottom + 18}" '
                     f'text-anchor="middle">{10.0 ** e:g} s</text>')
    for v in range(0, 101, 20):
        parts.append(f'<line x1="{left}" y1="{y(v):.1f}" x2="{width - 130}" y2="{y(v):.1f}" stroke="#ddd"/>'
                     f'<text x="{left - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v} %</text>')
    none = share(tasks, "none")
    parts.append(f'<line x1="{left}" y1="{y(none):.1f}" x2="{width - 130}" y2="{y(none):.1f}" stroke="#999" '
                 f'stroke-dasharray="4 3"/><text x="{width - 124}" y="{y(none) + 4:.1f}">no prompt</text>')
    for m, s, v in points:
        parts.append(f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="5" fill="#1f5fa8"/>'
                     f'<text x="{x(s) + 9:.1f}" y="{y(v) + 4:.1f}">{TITLES[m]}</text>')
    parts.append(f'<text x="{(left + width - 130) / 2}" y="{height - 10}" text-anchor="middle">time spent on a new '
                 f'task (median)</text><text x="{left}" y="14">right answers</text></svg>')
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(parts) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gist", default="build/release/gist", help="the program")
    p.add_argument("-m", "--model", required=True, help="trained with --input-loss")
    p.add_argument("--data", required=True, help="rows {instruction, input, output}; a prompt's rows are a task")
    p.add_argument("--tasks", type=int, default=40)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--sample", type=int, default=48, help="inputs that the model draws")
    p.add_argument("--answer-tokens", type=int, default=24)
    p.add_argument("--rank", type=int, default=8)
    p.add_argument("--lora-steps", type=int, default=200)
    p.add_argument("--lora-lr", type=float, default=2e-3)
    p.add_argument("--prefix-steps", type=int, default=400)
    p.add_argument("--prefix-lr", type=float, default=2e-2)
    p.add_argument("--tune-steps", type=int, default=60)
    p.add_argument("--tune-lr", type=float, default=1e-2)
    p.add_argument("-o", "--out", required=True)
    args = p.parse_args()
    os.makedirs(args.out, exist_ok=True)
    log = os.path.join(args.out, "tasks.jsonl")
    done = [json.loads(line) for line in open(log, encoding="utf-8")] if os.path.exists(log) else []
    for i, (prompt, rows) in enumerate(read_tasks(args.data, args.tasks)):
        if i < len(done):
            continue
        done.append(measure(args, prompt, rows, args.out))
        with open(log, "a", encoding="utf-8") as f:
            f.write(json.dumps(done[-1]) + "\n")
        print(f"task {i + 1} of {args.tasks}: " +
              ", ".join(f"{m} {done[-1][m]['right']}" for m in METHODS) + f" of {done[-1]['inputs']}", flush=True)
    done = done[:args.tasks]
    text = table(done, args.seed)
    with open(os.path.join(args.out, "methods.md"), "w", encoding="utf-8") as f:
        f.write(text)
    chart(done, os.path.join(args.out, "methods.svg"))
    print(text)


if __name__ == "__main__":
    main()
