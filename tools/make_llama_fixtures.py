#!/usr/bin/env python3
"""Make tests/data/llama: tiny random LLaMA models and what `transformers` and PyTorch say about them.

    python tools/make_llama_fixtures.py [OUT]        (default OUT: tests/data/llama beside this directory)

Part 1, for the engine: model directories mha-f32, gqa-f32, gqa-bf16, mha-f16, each with expected.safetensors.
Part 2, for training: grad-f32 and grad-tied-f32 with losses, gradients, AdamW steps and distillation; rope.safetensors.
Names, shapes and conventions are written down in tests/data/llama/README.md, versions in tools/requirements.txt.
Two runs give the same bytes.  Every expected value is checked here by an independent way before it is written.
"""
import json
import os
import shutil
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import reference as ref
import tiny_tokenizers as tiny

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
transformers.utils.logging.disable_progress_bar()

GREEDY = 12
STRIDE = 10           # "logits10" holds every 10th column
MIN_MARGIN = 0.06     # greedy ids are not decided by rounding,
MIN_DISTINCT = 5      # nor are they one id again and again
MAX_BF16 = 0.012      # bf16 kernels alone (numpy_forward) move no logit by more, of the 2e-2 allowed

# V is the tokenizer's size.  legacy: whose spelling of config.json.  seed: one whose greedy ids pass the limits above.
MODELS = {
    "mha-f32": dict(seed=452, tokenizer="sentencepiece", dtype=torch.float32, legacy="llama1",
                    hidden_size=12, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3,
                    num_key_value_heads=3, head_dim=4, rope_theta=10000.0, rms_norm_eps=1e-6, tied=False),
    "gqa-f32": dict(seed=1599, tokenizer="json", dtype=torch.float32, legacy=None,
                    hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=8, rope_theta=500000.0, rms_norm_eps=1e-5, tied=True),
    "gqa-bf16": dict(seed=336, tokenizer="merges", dtype=torch.bfloat16, legacy="llama3", shard="16KB",
                     hidden_size=20, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=16, rope_theta=500000.0, rms_norm_eps=1e-5, tied=False),
    "mha-f16": dict(seed=625, tokenizer="sentencepiece-small", dtype=torch.float16, legacy="llama1",
                    hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=2, head_dim=10, rope_theta=10000.0, rms_norm_eps=1e-6, tied=False),
}
GRAD = dict(dtype=torch.float32, legacy=None, vocab=24, bos=1, eos=2, hidden_size=8, intermediate_size=10,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4, rope_theta=10000.0,
            rms_norm_eps=1e-5)
GRAD_MODELS = {"grad-f32": dict(GRAD, seed=31, tied=False), "grad-tied-f32": dict(GRAD, seed=32, tied=True)}

TEXTS = ["the sun", "Zoë: 14 hats!\nno  tea…"]
CASES = {1: ("the hat", "is it"), 3: ("a man sat", "the tea")}


# ---- models ----

def make_model(spec, vocab, bos, eos):
    """Random weights: norms in [0.7,1.3]; projections scaled so that attention is peaked and logits spread by 1-3."""
    config = LlamaConfig(
        vocab_size=vocab, bos_token_id=bos, eos_token_id=eos, max_position_embeddings=256, pad_token_id=None,
        tie_word_embeddings=spec["tied"], attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": spec["rope_theta"]},
        **{k: spec[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                                "num_key_value_heads", "head_dim", "rms_norm_eps")})
    model = LlamaForCausalLM(config).eval()
    rng = np.random.default_rng(spec["seed"])
    gain = {"q_proj": 1.1, "k_proj": 1.1, "v_proj": 1.0, "o_proj": 0.8, "gate_proj": 1.2, "up_proj": 1.2,
            "down_proj": 0.8, "lm_head": 1.6, "embed_tokens": 1.6}
    with torch.no_grad():
        for name, w in sorted(model.named_parameters()):
            kind = name.split(".")[-2]
            if w.dim() == 1:
                a = rng.uniform(0.7, 1.3, w.shape)
            else:
                a = rng.standard_normal(w.shape) * gain[kind] / np.sqrt(w.shape[1])
            w.copy_(torch.from_numpy(a.astype(np.float32)))
    return model.to(spec["dtype"])


def save_model(model, spec, path):
    """save_pretrained, then config.json in the older spelling where the spec asks for it."""
    model.save_pretrained(path, max_shard_size=spec.get("shard", "1GB"))
    if spec["legacy"]:
        name = os.path.join(path, "config.json")
        with open(name) as f:
            config = json.load(f)
        config["torch_dtype"] = config.pop("dtype")
        rope = config.pop("rope_parameters")
        if spec["legacy"] == "llama1":  # the first checkpoints: everything at its default is absent
            for key in ("head_dim", "attention_bias", "mlp_bias", "attention_dropout", "num_key_value_heads"):
                del config[key]
            config["transformers_version"] = "4.28.0"
        else:
            config["rope_theta"], config["rope_scaling"] = rope["rope_theta"], None
            config["transformers_version"] = "4.43.0"
        write_json(name, config)
    for name in os.listdir(path):
        os.chmod(os.path.join(path, name), 0o644)


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=2, sort_keys=True, ensure_ascii=False)
        f.write("\n")


def load_f32(path):
    """The model as any user would load it, its weights upcast to float32."""
    model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    for name, w in model.named_parameters():
        assert w.dtype == torch.float32, name
    return model


# ---- part 1: expected values of a model directory ----

def check_masks(model, ids, p, k):
    """Each row sees what the table says and nothing else, shown without looking at the mask that made the values."""
    n = len(ids)
    with torch.no_grad():
        out = {c: ref.forward(model, ids, ref.spans(p, k, n, c)) for c in ref.CONDITIONS}
        plain = model(input_ids=torch.tensor([ids])).logits[0]  # transformers' own causal mask
        assert ref.relative(out["pos_control"][0], plain) < 1e-5
        for c in ref.CONDITIONS:  # rows up to the gist do not depend on the condition
            assert torch.equal(out[c][0][:p + k], out["pos_control"][0][:p + k])
        # gist: prompt and gist alone, cut the cache to the gist rows, go on behind them with no mask but causality
        cache = model(input_ids=torch.tensor([ids[:p + k]]), use_cache=True).past_key_values
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, p:], layer.values[:, :, p:]
        rest = model(input_ids=torch.tensor([ids[p + k:]]), past_key_values=cache,
                     position_ids=torch.arange(p + k, n)[None]).logits[0]
        assert ref.relative(out["gist"][0][p + k:], rest) < 1e-5
        # other tokens in the prompt: neg_control rows must not move at all, the others must
        vocab = min(model.config.vocab_size - 1, 250)
        other = [(t + 7) % vocab for t in ids[:p]] + ids[p:]
        for c in ref.CONDITIONS:
            moved = ref.forward(model, other, ref.spans(p, k, n, c))[0]
            same = torch.equal(moved[p + k:], out[c][0][p + k:])
            assert same == (c == "neg_control"), c
        # other gist tokens: neg_control does not see them either
        other = ids[:p] + [5] * k + ids[p + k:]
        for c in ref.CONDITIONS:
            moved = ref.forward(model, other, ref.spans(p, k, n, c))[0]
            assert torch.equal(moved[p + k:], out[c][0][p + k:]) == (c == "neg_control"), c
        # one layer only: gist keys and values come from the gist embedding alone, so that under the gist mask the
        # prompt can reach the rest only directly, and must not
        layers, model.config.num_hidden_layers = model.config.num_hidden_layers, 1
        one = [ref.forward(model, t, ref.spans(p, k, n, "gist"))[0][p + k:]
               for t in (ids, [(t + 7) % vocab for t in ids[:p]] + ids[p:])]
        model.config.num_hidden_layers = layers
        assert torch.equal(one[0], one[1])
    for c in ref.CONDITIONS:  # and the equations, written down a second time
        assert ref.relative(out[c][0], ref.numpy_forward(model, ids, ref.spans(p, k, n, c))) < 1e-5, c


def expected_of(model, encode, gist_id, prefix, ends):
    """All tensors and texts of one expected.safetensors."""
    t, meta, report = {}, {}, {"margin": 9.0, "bf16": 0.0, "spread": 0.0}

    def put_greedy(name, ids, rows_of):
        out, margins = ref.greedy(model, ids, rows_of, GREEDY)
        if min(margins) < MIN_MARGIN or len(set(out)) < MIN_DISTINCT or any(i in ends for i in out):
            raise ValueError(f"{name}: margin {min(margins):.4f}, ids {out}")
        if rows_of is not ref.causal and out == ref.greedy(model, ids, ref.causal, GREEDY)[0]:
            raise ValueError(f"{name}: the mask makes no difference")
        t[name], t[name + "_margin"] = out, margins
        report["margin"] = min(report["margin"], min(margins))

    for s, text in enumerate(TEXTS):
        ids = prefix + encode(text)
        with torch.no_grad():
            logits = ref.forward(model, ids, ref.causal(len(ids)))[0]
        exact = ref.numpy_forward(model, ids, ref.causal(len(ids)))
        assert ref.relative(logits, exact) < 1e-5
        rough = ref.numpy_forward(model, ids, ref.causal(len(ids)), kernels_bf16=True)
        report["bf16"] = max(report["bf16"], ref.relative(rough, exact))
        report["spread"] = float(logits.std())
        t[f"full.{s}.ids"] = ids
        t[f"full.{s}.logits" if s == 0 else f"full.{s}.logits10"] = logits if s == 0 else logits[:, ::STRIDE]
        meta[f"full.{s}.text"] = text
        if s == 0:
            put_greedy("full.0.greedy", ids, ref.causal)

    for k, (prompt, rest) in CASES.items():
        head, tail = prefix + encode(prompt), encode(rest)
        ids, p, n = head + [gist_id] * k + tail, len(head), len(head) + k + len(tail)
        check_masks(model, ids, p, k)
        rows = ref.spans(p, k, n, "gist")
        rough = ref.numpy_forward(model, ids, rows, kernels_bf16=True)
        report["bf16"] = max(report["bf16"], ref.relative(rough, ref.numpy_forward(model, ids, rows)))
        targets = [-1] * (p + k) + tail[1:] + [-1]
        t[f"k{k}.ids"], t[f"k{k}.p"], t[f"k{k}.targets"] = ids, [p], targets
        meta[f"k{k}.prompt"], meta[f"k{k}.rest"] = prompt, rest
        for c in ref.CONDITIONS:
            model.zero_grad()
            logits, keys, values = ref.forward(model, ids, ref.spans(p, k, n, c))
            loss = ref.loss_of(logits, targets)
            loss.backward()
            t[f"k{k}.{c}.logits10"] = logits[:, ::STRIDE]
            t[f"k{k}.{c}.loss"] = loss.reshape(1)
            t[f"k{k}.{c}.grad_norms"] = [float(w.grad.norm()) for _, w in sorted(model.named_parameters())]
            if c == "gist":
                for i, (key, value) in enumerate(zip(keys, values)):
                    t[f"k{k}.key.{i}"], t[f"k{k}.value.{i}"] = key[p:p + k], value[p:p + k]
        put_greedy(f"k{k}.gist.greedy", ids, lambda m, p=p, k=k: ref.spans(p, k, m, "gist"))
    if report["bf16"] > MAX_BF16:
        raise ValueError(f"bf16 kernels differ by {report['bf16']:.1e}")
    return t, meta, report


def make_engine_fixture(out, name, spec):
    path = os.path.join(out, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    tok = tiny.make(spec["tokenizer"], path)
    save_model(make_model(spec, tok.size, tok.bos, tok.eos), spec, path)
    model, gist_id = load_f32(path), tok.gist
    assert model.config.rope_parameters["rope_theta"] == spec["rope_theta"]
    assert model.config.head_dim == spec["head_dim"] and model.config.rms_norm_eps == spec["rms_norm_eps"]
    if gist_id is None:
        model, gist_id = ref.with_gist_row(model), tok.size
    prefix = [tok.bos] if tok.adds_bos else []
    t, meta, report = expected_of(model, tok.encode, gist_id, prefix, {tok.bos, tok.eos, gist_id} | tok.ends)
    ref.write_safetensors(os.path.join(path, "expected.safetensors"), t, meta)
    print(f"{name}: V {tok.size}, gist {gist_id}, tokens {len(t['full.0.ids'])} {len(t['full.1.ids'])} "
          f"{len(t['k1.ids'])} {len(t['k3.ids'])}, logit std {report['spread']:.2f}, least margin "
          f"{report['margin']:.3f}, bf16 kernels differ by {report['bf16']:.1e}")


# ---- part 2: training ----

def grads_of(model, prefix, t):
    for name, w in model.named_parameters():
        t[f"{prefix}.grad.{name}"] = w.grad.clone()


def random_example(rng, k, condition, gist_id, vocab):
    """(ids, p, k, condition, targets): the last 4 tokens are the answer, then <eos> = 2 to predict."""
    p, rest = int(rng.integers(3, 7)), int(rng.integers(6, 9))
    body = rng.integers(3, vocab - 1, p + rest - 1).tolist()
    ids = [1] + body[:p - 1] + [gist_id] * k + body[p - 1:]
    targets = [-1] * (len(ids) - 5) + ids[-4:] + [2]
    return ids, p, k, condition, targets


def packed_layout(rng, p, k, kinds, vocab, gist_id):
    """One encoding of a prompt and its k gist tokens, then one pair per kind, each seeing a part of it and itself.
    kinds: ("gist", k'), ("pos_control", k'), ("full", 0), ("none", 0).  Equal pairs: the same 4 input and 3 answer
    tokens in every one, so that they differ in what they see only."""
    ids = [1] + rng.integers(3, vocab - 1, p - 1).tolist() + [gist_id] * k
    pair = rng.integers(3, vocab - 1, 7).tolist()
    n = len(ids)
    positions, targets, rows = list(range(n)), [-1] * n, ref.causal(n)
    for kind, kk in kinds:
        memory, first = {"gist": ((p, p + kk), p + kk), "pos_control": ((0, p + kk), p + kk), "full": ((0, p), p),
                         "none": ((0, 0), p + k)}[kind]
        start = len(ids)
        ids += pair
        positions += range(first, first + 7)
        targets += [-1] * 3 + pair[4:] + [2]
        rows += [[memory, (start, start + i + 1)] for i in range(7)]
    return ids, positions, targets, rows


def put_layout(t, prefix, ids, positions, targets, rows):
    t[f"{prefix}.ids"], t[f"{prefix}.positions"], t[f"{prefix}.targets"] = ids, positions, targets
    t[f"{prefix}.memory"] = [r[0] if len(r) == 2 else (0, 0) for r in rows]
    t[f"{prefix}.local"] = [r[-1] for r in rows]


def check_packed(model, p, k, kinds, ids, positions, rows, logits):
    """Packed rows equal the same pair run by itself behind what it may see."""
    start = p + k
    for kind, kk in kinds:
        see = {"gist": ids[:p + kk], "pos_control": ids[:p + kk], "full": ids[:p], "none": []}[kind]
        alone = see + ids[start:start + 7]
        if kind == "none":
            spans, pos = ref.causal(7), positions[start:start + 7]
        else:
            spans, pos = ref.spans(p, len(see) - p, len(alone), "gist" if kind == "gist" else "pos_control"), None
        with torch.no_grad():
            out = ref.forward(model, alone, spans, pos)[0][-7:]
        assert ref.relative(logits[start:start + 7].detach(), out) < 1e-5, kind
        start += 7


def gradient_cases(model, ks, conditions, seed, t):
    vocab, gist_id = model.config.vocab_size, model.config.vocab_size - 1
    rng = np.random.default_rng(seed)
    for k in ks:
        ids, p, _, _, targets = random_example(rng, k, None, gist_id, vocab)
        check_masks(model, ids, p, k)
        t[f"k{k}.ids"], t[f"k{k}.p"], t[f"k{k}.targets"] = ids, [p], targets
        for c in conditions:
            model.zero_grad()
            loss = ref.loss_of(ref.forward(model, ids, ref.spans(p, k, len(ids), c))[0], targets)
            loss.backward()
            ref.check_gradients(model, lambda w, rows=ref.spans(p, k, len(ids), c): ref.numpy_loss(
                ref.numpy_forward(model, ids, rows, weights=w), targets))
            t[f"k{k}.{c}.loss"] = loss.reshape(1)
            grads_of(model, f"k{k}.{c}", t)


def packed_case(model, seed, t):
    kinds = (("gist", 1), ("gist", 3), ("full", 0), ("none", 0), ("pos_control", 3))
    rng, vocab = np.random.default_rng(seed), model.config.vocab_size
    layout = packed_layout(rng, 5, 3, kinds, vocab, vocab - 1)
    ids, positions, targets, rows = layout
    model.zero_grad()
    logits = ref.forward(model, ids, rows, positions)[0]
    check_packed(model, 5, 3, kinds, ids, positions, rows, logits)
    loss = ref.loss_of(logits, targets)
    loss.backward()
    ref.check_gradients(model, lambda w: ref.numpy_loss(
        ref.numpy_forward(model, ids, rows, positions, weights=w), targets))
    put_layout(t, "packed", *layout)
    t["packed.loss"] = loss.reshape(1)
    grads_of(model, "packed", t)


def distill_case(model, seed, t):
    """KL(teacher || student), mean over label rows: student sees the gist (k' = 2 of 3), teacher the full prompt."""
    kinds = (("gist", 2), ("full", 0))
    rng, vocab = np.random.default_rng(seed), model.config.vocab_size
    layout = packed_layout(rng, 5, 3, kinds, vocab, vocab - 1)
    ids, positions, targets, rows = layout
    model.zero_grad()
    logits = ref.forward(model, ids, rows, positions)[0]
    check_packed(model, 5, 3, kinds, ids, positions, rows, logits)
    student = [i for i in range(8, 15) if targets[i] >= 0]
    teacher = [-1] * len(ids)
    for i in student:
        teacher[i] = i + 7
    log_s = torch.log_softmax(logits[student], -1)
    log_t = torch.log_softmax(logits[[teacher[i] for i in student]].detach(), -1)
    loss = (log_t.exp() * (log_t - log_s)).sum(-1).mean()
    loss.backward()
    fixed = log_t.double().numpy()

    def kl(w):
        log_q = ref.log_softmax(ref.numpy_forward(model, ids, rows, positions, weights=w)[student])
        return (np.exp(fixed) * (fixed - log_q)).sum(-1).mean()

    ref.check_gradients(model, kl)
    put_layout(t, "distill", *layout)
    t["distill.teacher"], t["distill.loss"] = teacher, loss.reshape(1)
    grads_of(model, "distill", t)


STEPS, WARMUP, LR, DECAY, CLIP = 20, 4, 1e-2, 0.1, 1.0


def learning_rate(step):
    """Linear warm-up from 0, then half a cosine to 0 (transformers' get_cosine_schedule_with_warmup)."""
    if step < WARMUP:
        return LR * step / WARMUP
    return LR * 0.5 * (1.0 + np.cos(np.pi * (step - WARMUP) / (STEPS - WARMUP)))


def train(model, batches, clip):
    """STEPS of AdamW; losses and gradient norms before clipping, one per step."""
    matrices = [w for w in model.parameters() if w.dim() == 2]
    norms = [w for w in model.parameters() if w.dim() == 1]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": norms, "weight_decay": 0.0}],
                            lr=LR, betas=(0.9, 0.999), eps=1e-8, foreach=False, fused=False)
    losses, lengths = [], []
    for step in range(STEPS):
        total = 0.0
        batch = batches[step % len(batches)]
        labels = sum(sum(x >= 0 for x in e[4]) for e in batch)
        opt.zero_grad()
        for ids, p, k, c, targets in batch:
            logits = ref.forward(model, ids, ref.spans(p, k, len(ids), c))[0]
            loss = ref.loss_of(logits, targets) * sum(x >= 0 for x in targets) / labels
            loss.backward()
            total += loss.item()
        lengths.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip)))
        losses.append(total)
        for group in opt.param_groups:
            group["lr"] = learning_rate(step)
        opt.step()
    return losses, lengths


def train_by_hand(model, batches, clip):
    """The update rule of the README in float64, gradients from autograd: final weights by name."""
    params = dict(model.named_parameters())
    w = ref.float64_weights(model)
    m, v = {n: 0.0 for n in w}, {n: 0.0 for n in w}
    for step in range(STEPS):
        batch = batches[step % len(batches)]
        model.zero_grad()
        rows = [(ref.forward(model, e[0], ref.spans(*e[1:3], len(e[0]), e[3]))[0], e[4]) for e in batch]
        ref.loss_of(torch.cat([x for x, _ in rows]), sum((y for _, y in rows), [])).backward()
        g = {n: x.grad.double().numpy() for n, x in params.items()}
        norm = np.sqrt(sum((x * x).sum() for x in g.values()))
        lr = learning_rate(step)
        for n in w:
            x = g[n] * min(1.0, clip / (norm + 1e-6))
            m[n], v[n] = 0.9 * m[n] + 0.1 * x, 0.999 * v[n] + 0.001 * x * x
            w[n] = w[n] * (1 - lr * (DECAY if w[n].ndim == 2 else 0.0)) - lr * (m[n] / (1 - 0.9 ** (step + 1))) / (
                np.sqrt(v[n]) / np.sqrt(1 - 0.999 ** (step + 1)) + 1e-8)
            params[n].data.copy_(torch.from_numpy(w[n]))
    return w


def adamw_cases(path, seed, t):
    rng, batches = np.random.default_rng(seed), []
    vocab = GRAD["vocab"]
    kinds = [("gist", 1), ("pos_control", 3), ("neg_control", 1), ("gist", 3)]
    for b in range(4):
        batch = []
        for e in range(2):
            c, k = kinds[(b + e) % 4]
            example = random_example(rng, k, c, vocab - 1, vocab)
            ids, p, k, c, targets = example
            at = f"batch.{b}.{e}"
            t[f"{at}.ids"], t[f"{at}.targets"] = ids, targets
            t[f"{at}.layout"] = [p, k, ref.CONDITIONS.index(c)]
            batch.append(example)
        batches.append(batch)
    t["lr"] = [learning_rate(s) for s in range(STEPS)]
    for name, clip in (("clip", CLIP), ("noclip", float("inf"))):
        model = load_f32(path)
        losses, lengths = train(model, batches, clip)
        t[f"{name}.losses"], t[f"{name}.grad_norms"] = losses, lengths
        weights = dict(model.named_parameters())
        for key, w in weights.items():
            t[f"{name}.weight.{key}"] = w
        again = load_f32(path)  # is the run stable?  start from weights one rounding away
        noise = np.random.default_rng(0)
        with torch.no_grad():
            for w in again.parameters():
                w.mul_(1 + torch.from_numpy(noise.choice([-1e-7, 1e-7], w.shape).astype(np.float32)))
        train(again, batches, clip)
        drift = max(ref.relative(w.detach(), weights[key].detach()) for key, w in again.named_parameters())
        assert drift < 2e-4, drift
        assert losses[-1] < losses[0]
        for key, w in train_by_hand(load_f32(path), batches, clip).items():
            assert ref.relative(weights[key].detach(), w) < 2e-4, key
        if name == "noclip":
            assert max(ref.relative(t[f"clip.weight.{key}"].detach(), w.detach()) for key, w in weights.items()) > 1e-2
        print(f"adamw {name}: loss {losses[0]:.3f} -> {losses[-1]:.3f}, gradient norms {min(lengths):.2f} to "
              f"{max(lengths):.2f}, drift from 1e-7 noise {drift:.1e}")


def make_training_fixture(out, name, spec):
    path = os.path.join(out, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    save_model(make_model(spec, spec["vocab"], spec["bos"], spec["eos"]), spec, path)
    model, t = load_f32(path), {}
    gradient_cases(model, (3,) if spec["tied"] else (1, 3), ("gist",) if spec["tied"] else ref.CONDITIONS,
                   spec["seed"] + 100, t)
    if not spec["tied"]:
        packed_case(model, spec["seed"] + 200, t)
        distill_case(model, spec["seed"] + 300, t)
    ref.write_safetensors(os.path.join(path, "expected.safetensors"), t)
    if not spec["tied"]:
        t = {}
        adamw_cases(path, spec["seed"] + 400, t)
        ref.write_safetensors(os.path.join(path, "adamw.safetensors"), t)


def make_rope(out):
    """Inverse frequencies of the scalings LLaMA checkpoints carry, D 64."""
    t, base = {}, {"rope_theta": 500000.0}
    for name, scaling in (("linear", {"factor": 4.0}),
                          ("llama3", {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                      "original_max_position_embeddings": 8192})):
        config = LlamaConfig(hidden_size=256, num_attention_heads=4, head_dim=64, max_position_embeddings=131072,
                             rope_parameters={"rope_type": name, **base, **scaling})
        t[f"inv_freq.{name}"], factor = ROPE_INIT_FUNCTIONS[name](config, "cpu")
        assert factor == 1.0
    t["inv_freq.default"] = 1.0 / (500000.0 ** (torch.arange(0, 64, 2).float() / 64))
    ref.write_safetensors(os.path.join(out, "rope.safetensors"), t)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "tests", "data", "llama")
    os.makedirs(out, exist_ok=True)
    for name, spec in MODELS.items():
        make_engine_fixture(out, name, spec)
    for name, spec in GRAD_MODELS.items():
        make_training_fixture(out, name, spec)
    make_rope(out)
    total = 0
    for folder, _, files in sorted(os.walk(out)):
        for name in files:
            path = os.path.join(folder, name)
            total += os.path.getsize(path)
            if name.endswith(".safetensors"):
                load_file(path)  # the package accepts what we wrote
    print(f"{total} bytes in all")
    assert total < 400 * 1024


if __name__ == "__main__":
    main()
