#!/usr/bin/env python3
"""Training curves of several runs of `gist train` in one picture.

    python tools/plot_runs.py "gist k=1"=runs/gist1-1,runs/gist1-2 "pos_control"=runs/pos-1 -o curves.svg

NAME=DIR,DIR...: runs of one kind have one colour; a DIR holds metrics.jsonl.  Lines: loss on the answers of training
pairs, mean of --window steps; rings: loss on the first validation split.  Needs nothing beside Python.
"""
import argparse
import json
import os

COLOURS = ("#1f5fa8", "#d2691e", "#2e8b57", "#8b3a8b", "#a0522d", "#555555")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 56, 150, 24, 46


def read_run(path, window):
    """Points (epoch, loss) of training and of validation."""
    train, val, epoch, part = [], [], 0.0, []
    with open(os.path.join(path, "metrics.jsonl"), encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            if "eval" in row:
                name = next(n for n in row["eval"] if "/exact" not in n)
                val.append((epoch, row["eval"][name]))
                continue
            epoch = row["epoch"]
            losses = list(row["lm"].values())
            part.append(sum(losses) / len(losses))
            if len(part) == window:
                train.append((epoch, sum(part) / window))
                part = []
    return train, val


def ticks(low, high, step):
    n = int(low / step)
    while n * step <= high + 1e-9:
        if n * step >= low - 1e-9:
            yield n * step
        n += 1


def draw(kinds, path):
    points = [p for _, runs in kinds for t, v in runs for p in t + v]
    x_high, low, high = max(p[0] for p in points), min(p[1] for p in points), max(p[1] for p in points)
    low, high = int(low * 2) / 2, min(int(high * 2 + 1) / 2, 7.0)
    x = lambda e: LEFT + e / x_high * (WIDTH - LEFT - RIGHT)
    y = lambda v: HEIGHT - BOTTOM - (min(v, high) - low) / (high - low) * (HEIGHT - BOTTOM - TOP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
           f'font-size="13"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for v in ticks(low, high, 0.5):
        out.append(f'<line x1="{LEFT}" y1="{y(v):.1f}" x2="{WIDTH - RIGHT}" y2="{y(v):.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>')
    for e in ticks(0, x_high, 0.1 if x_high < 1.5 else 0.5):
        out.append(f'<line x1="{x(e):.1f}" y1="{TOP}" x2="{x(e):.1f}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>'
                   f'<text x="{x(e):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{e:g}</text>')
    for i, (name, runs) in enumerate(kinds):
        colour = COLOURS[i % len(COLOURS)]
        for train, val in runs:
            path_ = " ".join(f"{x(e):.1f},{y(v):.1f}" for e, v in train)
            out.append(f'<polyline points="{path_}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
            out += [f'<circle cx="{x(e):.1f}" cy="{y(v):.1f}" r="3.5" fill="#fff" stroke="{colour}"/>'
                    for e, v in val if v <= high]
        out.append(f'<text x="{WIDTH - RIGHT + 14}" y="{TOP + 20 + 20 * i}" fill="{colour}">{name}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">epochs</text>'
               f'<text x="{LEFT}" y="14">loss per answer token; rings: validation</text></svg>')
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="+", metavar="NAME=DIR,DIR...")
    p.add_argument("--window", type=int, default=40, help="steps in a mean [40]")
    p.add_argument("-o", "--out", required=True)
    args = p.parse_args()
    kinds = []
    for run in args.runs:
        name, _, dirs = run.rpartition("=")
        if not name:
            p.error(f"{run}: not NAME=DIR,DIR...")
        kinds.append((name, [read_run(d, args.window) for d in dirs.split(",")]))
    draw(kinds, args.out)


if __name__ == "__main__":
    main()
