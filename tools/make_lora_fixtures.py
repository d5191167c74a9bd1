#!/usr/bin/env python3
"""Make tests/data/lora: LoRA adapters for tests/data/llama/grad-f32 and tests/data/t5/v11-f32, and what PyTorch says.

    python tools/make_lora_fixtures.py [OUT]        (default OUT: tests/data/lora beside this directory)

    everywhere/   rank 3 on q, v, o, gate, down: written by PEFT itself, its logits are the expected ones
    gist/         rank 2 on all seven matrices, acting on rows of <GIST> only, with "gist_positions_only": true
    t5-gist/      rank 2 on all matrices of T5's encoder, on rows of <GIST> only; source and target are v11-f32's own
    each with expected.safetensors: logits, loss and grad.NAME of every tensor of the adapter; the first two ids, p and
    targets as well

Condition gist, k = 3.  Both kinds are computed by hooks that add s (x A^T) B^T on the rows that count and put the adapter's
own embedding where <GIST> stands; for the first kind PEFT must agree.  Gradients are checked by finite differences
(transformers computes norms in float32 whatever the weights, hence their tolerance).  Ran with peft 0.21.2 and accelerate 1.15.0 beside tools/requirements.txt.  Two runs give the same bytes.
"""
import json
import os
import shutil
import sys

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from safetensors.torch import load_file
from transformers import T5Config, T5ForConditionalGeneration

import make_llama_fixtures as llama
import make_t5_fixtures as t5
import reference as ref

GIST = llama.GRAD["vocab"] - 1
EMBED = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def draw(model, rank, targets, rng):
    """A and B of every target, and the embedding: none of them zero, sizes that matter to the loss."""
    t = {}
    for name, m in model.named_modules():
        if name.split(".")[-1] in targets:
            out, width = m.weight.shape
            at = f"base_model.model.{name}."
            t[at + "lora_A.weight"] = torch.tensor(rng.standard_normal((rank, width)) / width ** 0.5)
            t[at + "lora_B.weight"] = torch.tensor(rng.standard_normal((out, rank)) * 0.3)
    t[EMBED] = torch.tensor(rng.standard_normal((1, model.config.hidden_size)))
    return {k: v.float() for k, v in sorted(t.items())}


def adapted(model, tensors, scale, ids, rows, gist_only):
    """Logits with the adapter, differentiable in its tensors."""
    is_gist = torch.tensor(ids) == GIST
    mask = (is_gist if gist_only else torch.ones_like(is_gist)).to(next(iter(tensors.values())).dtype)[:, None]
    hooks = []
    for name, m in model.named_modules():
        at = f"base_model.model.{name}."
        if at + "lora_A.weight" in tensors:
            a, b = tensors[at + "lora_A.weight"], tensors[at + "lora_B.weight"]
            hooks.append(m.register_forward_hook(
                lambda _, x, y, a=a, b=b: y + mask * scale * (x[0] @ a.T) @ b.T))
    hooks.append(model.model.embed_tokens.register_forward_hook(
        lambda _, x, y: torch.where(is_gist[:, None], tensors[EMBED], y)))
    logits = ref.forward(model, ids, rows)[0]
    for h in hooks:
        h.remove()
    return logits


def make(out, base, kind, rank, alpha, targets, seed):
    gist_only, path, rng = kind == "gist", os.path.join(out, kind), np.random.default_rng(seed)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    model = llama.load_f32(base)
    tensors = draw(model, rank, targets, rng)
    ref.write_safetensors(os.path.join(path, "adapter_model.safetensors"), tensors, {"format": "pt"})
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(targets), trainable_token_indices=[GIST],
                        task_type="CAUSAL_LM")
    get_peft_model(llama.load_f32(base), config).save_pretrained(path + ".peft")
    with open(os.path.join(path + ".peft", "adapter_config.json")) as f:
        written = json.load(f)
    shutil.rmtree(path + ".peft")
    written["target_modules"], written["base_model_name_or_path"] = sorted(targets), "grad-f32"
    if gist_only:
        written["gist_positions_only"] = True
    llama.write_json(os.path.join(path, "adapter_config.json"), written)

    ids, p, k, _, targets_of = llama.random_example(rng, 3, "gist", GIST, GIST + 1)
    rows, scale = ref.spans(p, k, len(ids), "gist"), alpha / rank
    for x in tensors.values():
        x.requires_grad_(True)
    logits = adapted(model, tensors, scale, ids, rows, gist_only)
    loss = ref.loss_of(logits, targets_of)
    loss.backward()
    plain = ref.forward(model, ids, rows)[0]
    assert ref.relative(logits[p:].detach(), plain[p:].detach()) > 0.1
    if gist_only:
        assert torch.equal(logits[:p], plain[:p])
    else:
        peft = PeftModel.from_pretrained(llama.load_f32(base), path).eval()
        assert ref.relative(logits.detach(), ref.forward(peft, ids, rows)[0].detach()) < 1e-5
    double = llama.load_f32(base).double()
    for name, x in tensors.items():  # one central difference along a random direction each
        wide = {n: y.detach().double() for n, y in tensors.items()}
        d, ends = torch.tensor(rng.standard_normal(x.shape)), []
        for sign in (1, -1):
            wide[name] = x.detach().double() + sign * 1e-3 * d
            ends.append(float(ref.loss_of(adapted(double, wide, scale, ids, rows, gist_only), targets_of).detach()))
        error = abs((ends[0] - ends[1]) / 2e-3 - float((x.grad.double() * d).sum()))
        assert error <= 2e-3 * float(x.grad.double().norm()), (name, error)
    t = {"ids": ids, "p": [p], "targets": targets_of, "logits": logits, "loss": loss.reshape(1)}
    t.update({f"grad.{name}": x.grad for name, x in tensors.items()})
    ref.write_safetensors(os.path.join(path, "expected.safetensors"), t)
    print(f"{kind}: loss {float(ref.loss_of(plain, targets_of).detach()):.3f} without, {float(loss.detach()):.3f} with")


# ---- T5: the encoder has the rows of <GIST> ----

T5_EMBED = "base_model.model.shared.token_adapter.trainable_tokens_delta"
T5_MODULES = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")


def load_t5(path):
    """transformers ties the head in any case; this checkpoint has one of its own."""
    config = T5Config.from_pretrained(path, attn_implementation="eager")
    model = T5ForConditionalGeneration(config).eval()
    model.lm_head = torch.nn.Linear(config.d_model, config.vocab_size, bias=False)
    tensors = load_file(os.path.join(path, "model.safetensors"))
    for stack in ("encoder", "decoder"):
        tensors[f"{stack}.embed_tokens.weight"] = tensors["shared.weight"]
    model.load_state_dict(tensors)
    for x in model.parameters():
        x.requires_grad_(False)
    return model


def adapted_t5(model, tensors, scale, source, target):
    """Logits of the target under condition gist, differentiable in the adapter's tensors."""
    gist = source[t5.P]
    mask, hooks = (torch.tensor(source) == gist)[:, None], []
    for name, m in model.named_modules():
        at = f"base_model.model.{name}."
        if at + "lora_A.weight" in tensors:
            a, b = tensors[at + "lora_A.weight"], tensors[at + "lora_B.weight"]
            hooks.append(m.register_forward_hook(
                lambda _, x, y, a=a, b=b: y + mask.to(y.dtype) * scale * (x[0] @ a.T) @ b.T))
    if tensors:
        hooks.append(model.encoder.embed_tokens.register_forward_hook(
            lambda _, x, y: torch.where((x[0] == gist)[..., None], tensors[T5_EMBED], y)))
    logits, _ = t5.with_graph(model, source, target, *t5.spans(t5.P, t5.K, len(source), "gist"))
    for h in hooks:
        h.remove()
    return logits


def make_t5(out, base, rank, alpha, seed):
    path, rng, scale = os.path.join(out, "t5-gist"), np.random.default_rng(seed), alpha / rank
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    model, known = load_t5(base), load_file(os.path.join(base, "expected.safetensors"))
    source, target = known["source"].int().tolist(), known["target"].int().tolist()
    labels, tensors = torch.tensor(target[1:] + [1]), {}
    for name, m in model.encoder.named_modules():
        if name.split(".")[-1] in T5_MODULES:
            wide, at = m.weight.shape, f"base_model.model.encoder.{name}."
            tensors[at + "lora_A.weight"] = torch.tensor(rng.standard_normal((rank, wide[1])) / wide[1] ** 0.5)
            tensors[at + "lora_B.weight"] = torch.tensor(rng.standard_normal((wide[0], rank)) * 0.3)
    tensors[T5_EMBED] = torch.tensor(rng.standard_normal((1, model.config.d_model)))
    tensors = {k: v.float() for k, v in sorted(tensors.items())}
    ref.write_safetensors(os.path.join(path, "adapter_model.safetensors"), tensors, {"format": "pt"})
    llama.write_json(os.path.join(path, "adapter_config.json"), {
        "base_model_name_or_path": "v11-f32", "bias": "none", "gist_positions_only": True, "lora_alpha": alpha,
        "peft_type": "LORA", "r": rank, "target_modules": sorted(T5_MODULES), "task_type": "SEQ_2_SEQ_LM",
        "trainable_token_indices": [source[t5.P]]})
    for x in tensors.values():
        x.requires_grad_(True)
    plain = adapted_t5(model, {}, scale, source, target)
    assert ref.relative(plain, known["gist.logits"]) < 1e-6
    logits = adapted_t5(model, tensors, scale, source, target)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    assert ref.relative(logits.detach(), plain) > 0.02
    double = load_t5(base).double()
    for name, x in tensors.items():
        wide = {n: y.detach().double() for n, y in tensors.items()}
        d, ends = torch.tensor(rng.standard_normal(x.shape)), []
        for sign in (1, -1):
            wide[name] = x.detach().double() + sign * 2e-4 * d
            ends.append(float(torch.nn.functional.cross_entropy(adapted_t5(double, wide, scale, source, target), labels)))
        error = abs((ends[0] - ends[1]) / 4e-4 - float((x.grad.double() * d).sum()))
        assert error <= 2e-3 * float(x.grad.double().norm()) + 5e-4, (name, error)  # + norms in float32 over the step
    t = {"logits": logits, "loss": loss.reshape(1)}
    t.update({f"grad.{name}": x.grad for name, x in tensors.items()})
    ref.write_safetensors(os.path.join(path, "expected.safetensors"), t)
    before = float(torch.nn.functional.cross_entropy(plain, labels))
    print(f"t5-gist: loss {before:.3f} without, {float(loss.detach()):.3f} with")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    data = os.path.join(here, "..", "tests", "data")
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(data, "lora")
    base = os.path.join(data, "llama", "grad-f32")
    make(out, base, "everywhere", 3, 6, {"q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"}, 51)
    make(out, base, "gist", 2, 8, set(MODULES), 52)
    make_t5(out, os.path.join(data, "t5", "v11-f32"), 2, 8, 53)
    with open(os.path.join(out, "README.md"), "w") as f:
        f.write("Made by tools/make_lora_fixtures.py (its header says what is in here), seeds 51, 52 and 53.\n")


if __name__ == "__main__":
    main()
