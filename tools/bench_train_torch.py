#!/usr/bin/env python3
"""Time steps of training with PyTorch and with gist: same model, batch and cores, taking turns in one run.

    python tools/bench_train_torch.py [--gist build/release/gist] [--shapes small,gpt2] [--types f32,bf16]
                                      [--rounds 5] [--steps 3] [--threads N] [--json FILE]

A step is forward, backward and AdamW.  PyTorch runs the model below in its fastest forms: fused kernels (rms_norm,
scaled_dot_product_attention, cross_entropy), fused AdamW, eager and through torch.compile, and for comparison
transformers' LlamaForCausalLM with sdpa.  bf16 is autocast: bf16 products, f32 masters, as `gist bench train --type
bf16`.  Every round runs each form for `steps` steps behind one that warms up; medians over all of them count, and the
ratio is gist against the fastest form.  Weights are random (seed 0): the speed of a dense model does not depend on them.

Ran with CPython 3.11, torch 2.15.0, transformers 5.23.0 (tools/requirements.txt); results in docs/SPEED.md.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

# layers, width, feed-forward, heads, vocabulary; batch: as `gist bench train --shape` has them
SHAPES = {"small": (6, 512, 1376, 8, 8192, 8), "gpt2": (12, 768, 2048, 12, 50257, 4)}
EPS = 1e-5


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Block(nn.Module):
    def __init__(self, C, Fw, H):
        super().__init__()
        self.H = H
        self.norm1, self.norm2 = nn.RMSNorm(C, EPS), nn.RMSNorm(C, EPS)
        self.q, self.k, self.v, self.o = (nn.Linear(C, C, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(C, Fw, bias=False), nn.Linear(C, Fw, bias=False)
        self.down = nn.Linear(Fw, C, bias=False)

    def forward(self, x, cos, sin):
        B, T, C = x.shape
        n = self.norm1(x)
        q, k, v = (m(n).view(B, T, self.H, C // self.H).transpose(1, 2) for m in (self.q, self.k, self.v))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(a.transpose(1, 2).reshape(B, T, C))
        n = self.norm2(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class Llama(nn.Module):
    def __init__(self, L, C, Fw, H, V, T):
        super().__init__()
        self.embed = nn.Embedding(V, C)
        self.blocks = nn.ModuleList(Block(C, Fw, H) for _ in range(L))
        self.norm = nn.RMSNorm(C, EPS)
        self.head = nn.Linear(C, V, bias=False)
        half = C // H // 2
        angle = torch.outer(torch.arange(T).float(), 10000.0 ** (-torch.arange(half).float() / half))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, 0, 0.02)

    def forward(self, ids):
        x = self.embed(ids)
        for b in self.blocks:
            x = b(x, self.cos, self.sin)
        return self.head(self.norm(x))


def transformers_model(L, C, Fw, H, V, T):
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(vocab_size=V, hidden_size=C, intermediate_size=Fw, num_hidden_layers=L, num_attention_heads=H,
                         max_position_embeddings=T, rms_norm_eps=EPS, tie_word_embeddings=False, use_cache=False,
                         attn_implementation="sdpa")
    model = LlamaForCausalLM(config)
    return model, lambda ids: model(input_ids=ids).logits


class Form:
    """One way of running the model in PyTorch."""

    def __init__(self, name, model, forward, bf16, ids):
        self.name, self.forward, self.bf16, self.ids = name, forward, bf16, ids
        self.seconds, self.failed, self.loss = [], None, None
        self.adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

    def step(self):
        self.adamw.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits = self.forward(self.ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), self.ids[:, 1:].flatten())
        loss.backward()
        self.adamw.step()
        self.loss = loss.item()

    def run(self, steps):
        if self.failed:
            return
        try:
            for i in range(steps + 1):
                start = time.perf_counter()
                self.step()
                if i > 0:
                    self.seconds.append(time.perf_counter() - start)
        except Exception as e:  # torch.compile needs a C++ compiler, for one
            self.failed = f"{type(e).__name__}: {str(e).splitlines()[0][:100]}"

    def ms(self):
        return 1e3 * statistics.median(self.seconds) if self.seconds and not self.failed else None


def make_forms(names, shape, length, bf16):
    L, C, Fw, H, V, B = SHAPES[shape]
    torch.manual_seed(0)
    ids = torch.randint(0, V, (B, length + 1))
    forms = []
    if "eager" in names or "compile" in names:
        model = Llama(L, C, Fw, H, V, length)
        if "eager" in names:
            forms.append(Form("eager", model, model, bf16, ids))
        if "compile" in names:
            forms.append(Form("compile", model, torch.compile(model), bf16, ids))
    if "transformers" in names:
        model, forward = transformers_model(L, C, Fw, H, V, length)
        forms.append(Form("transformers", model, forward, bf16, ids))
    return forms


def ours(a, shape, kind):
    cmd = [a.gist, "bench", "train", "--shape", shape, "--type", kind, "--length", str(a.length), "--steps", str(a.steps),
           "--threads", str(a.threads), "--json"]
    return json.loads(subprocess.run(cmd, check=True, capture_output=True, text=True).stdout)


def compare(a, shape, kind):
    torch.compiler.reset()
    forms = make_forms(a.forms.split(","), shape, a.length, kind == "bf16")
    runs = []
    for f in forms:
        f.run(1)  # compiling and first touches are not timed
        f.seconds = []
    for r in range(a.rounds):
        print(f"  {shape} {kind}: round {r + 1} of {a.rounds}, load {os.getloadavg()[0]:.2f}", file=sys.stderr)
        runs.append(ours(a, shape, kind))
        for f in forms:
            f.run(a.steps)
    median = {k: statistics.median(r[k] for r in runs) for k in ("step_ms", "gflops", "peak_gflops", "share_of_peak")}
    flops = runs[0]["gflops"] * runs[0]["step_ms"] / 1e3  # GFLOP of one step
    times = {f.name: f.ms() for f in forms}
    done = [t for t in times.values() if t]
    row = dict(shape=shape, type=kind, rounds=a.rounds, gist_ms=median["step_ms"], gist_gflops=median["gflops"],
               peak_gflops=median["peak_gflops"], share_of_peak=median["share_of_peak"], torch_ms=times,
               torch_gflops={k: 1e3 * flops / t if t else None for k, t in times.items()},
               ratio=min(done) / median["step_ms"] if done else None,
               losses={f.name: f.loss for f in forms}, failed={f.name: f.failed for f in forms if f.failed})
    print(f"{shape:6} {kind:5} gist {row['gist_ms']:8.1f} ms {row['gist_gflops']:6.0f} GFLOP/s "
          f"({100 * row['share_of_peak']:.1f} % of {row['peak_gflops']:.0f})", end="")
    for f in forms:
        print(f"   {f.name} {f.ms():.1f} ms" if f.ms() else f"   {f.name} failed: {f.failed}", end="")
    print(f"   ratio {row['ratio']:.2f}" if row["ratio"] else "   no ratio", flush=True)
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--gist", default="build/release/gist")
    p.add_argument("--shapes", default="small,gpt2")
    p.add_argument("--types", default="f32,bf16")
    p.add_argument("--forms", default="eager,compile,transformers")
    p.add_argument("--length", type=int, default=256)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--json", metavar="FILE")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    print(f"torch {torch.__version__}, {a.threads} threads, medians of {a.rounds} rounds of {a.steps} steps", flush=True)
    rows = [compare(a, s, t) for s in a.shapes.split(",") for t in a.types.split(",")]
    if a.json:
        with open(a.json, "w") as f:
            json.dump(dict(torch=torch.__version__, threads=a.threads, rows=rows), f, indent=1)


if __name__ == "__main__":
    main()
