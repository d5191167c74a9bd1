"""Reference semantics of gisting on top of Hugging Face models of the LLaMA family (CPU, float32), for the fixtures.

    spans      row i of a condition sees keys [lo, i]     (Mu et al. 2023, decoder-only masks)
    mask4d     spans -> the additive 4-D mask that `attn_implementation="eager"` takes
    forward    logits, and the keys (after RoPE) and values of every layer
    numpy_forward   the family once more, in float64 and with spans instead of masks: an independent check
    write_safetensors   byte-identical output for identical input (sorted names, sorted metadata)

Shapes: n tokens, V vocabulary, C width, H query heads, G key/value heads, D head width, k gist tokens.
"""
import json
import math
import struct

import numpy as np
import torch

CONDITIONS = ("gist", "pos_control", "neg_control")


def windowed(rows, window):
    """The same rows, each seeing at most the last `window` positions, its own included."""
    return [[(max(lo, i - window + 1), hi) for lo, hi in row] for i, row in enumerate(rows)]


def spans(p, k, n, condition):
    """Visible keys of each row as a list of intervals: prompt [0,p), gist [p,p+k), rest [p+k,n)."""
    lo = {"gist": p, "pos_control": 0, "neg_control": p + k}[condition]
    return [[(0 if i < p + k else lo, i + 1)] for i in range(n)]


def causal(n):
    return [[(0, i + 1)] for i in range(n)]


def mask4d(rows, keys=None):
    """[1,1,n,keys] of 0 (visible) and the lowest float (hidden)."""
    keys = keys or len(rows)
    m = torch.full((1, 1, len(rows), keys), torch.finfo(torch.float32).min)
    for i, intervals in enumerate(rows):
        for lo, hi in intervals:
            m[0, 0, i, lo:hi] = 0.0
    return m


def forward(model, ids, rows, positions=None):
    """Logits [n,V]; keys and values, one [n,G,D] per layer."""
    out = model(input_ids=torch.tensor([ids]), attention_mask=mask4d(rows), use_cache=True,
                position_ids=torch.tensor([positions or list(range(len(ids)))]))
    cache = out.past_key_values
    keys = [layer.keys[0].transpose(0, 1) for layer in cache.layers]
    values = [layer.values[0].transpose(0, 1) for layer in cache.layers]
    return out.logits[0], keys, values


def greedy(model, ids, rows_of, count):
    """`count` greedy ids after `ids`, the whole sequence run anew each time, and the top-1 to top-2 margins."""
    ids, margins = list(ids), []
    with torch.no_grad():
        for _ in range(count):
            logits, _, _ = forward(model, ids, rows_of(len(ids)))
            top = torch.topk(logits[-1], 2)
            margins.append(float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
    return ids[-count:], margins


def loss_of(logits, targets):
    """Mean cross-entropy over rows with targets >= 0; row i predicts targets[i]."""
    return torch.nn.functional.cross_entropy(logits, torch.tensor(targets), ignore_index=-1)


def with_gist_row(model):
    """A copy with one more vocabulary row, the mean of the others, in the embedding and in an untied head."""
    config = type(model.config).from_dict(model.config.to_dict())
    config.vocab_size += 1
    config._attn_implementation = "eager"
    out = type(model)(config).eval()
    state = {}
    for name, w in model.state_dict().items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            w = torch.cat([w, w.mean(dim=0, keepdim=True)])
        state[name] = w
    out.load_state_dict(state)
    return out


def bf16(x):
    """Round float64 to the nearest bfloat16."""
    return torch.from_numpy(x).to(torch.bfloat16).to(torch.float64).numpy()


def float64_weights(model):
    return {name: w.detach().double().numpy() for name, w in model.named_parameters()}


def scaled_llama3(freq, p):
    """LLaMA 3.1's frequencies by how often each turns within the original context."""
    turns = p["original_max_position_embeddings"] * freq / (2 * math.pi)
    low, high = p["low_freq_factor"], p["high_freq_factor"]
    s = np.clip((turns - low) / (high - low), 0, 1)
    return freq * ((1 - s) / p["factor"] + s)


def numpy_forward(model, ids, rows, positions=None, kernels_bf16=False, weights=None):
    """Logits [n,V] in float64 by the textbook equations.  kernels_bf16: operands of every weight product, keys and
    values are rounded to bf16 as a bf16 kernel does, to see how much of the tolerance that takes.
    weights: float64 arrays by name to use instead of the model's."""
    c = model.config
    w = weights or float64_weights(model)
    head = w["model.embed_tokens.weight"] if c.tie_word_embeddings else w["lm_head.weight"]
    n, heads, groups, width = len(ids), c.num_attention_heads, c.num_key_value_heads, c.head_dim
    positions = np.array(positions or range(n), dtype=np.float64)
    freq = c.rope_parameters["rope_theta"] ** (-np.arange(0, width, 2) / width)
    if c.rope_parameters["rope_type"] == "llama3":
        freq = scaled_llama3(freq, c.rope_parameters)
    angle = positions[:, None] * freq
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    r = bf16 if kernels_bf16 else (lambda x: x)

    def norm(x, g):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + c.rms_norm_eps) * g

    def rope(x):  # pairs (j, j + D/2)
        a, b = x[..., : width // 2], x[..., width // 2:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = w["model.embed_tokens.weight"][ids]
    for i in range(c.num_hidden_layers):
        at = f"model.layers.{i}."
        h = r(norm(x, w[at + "input_layernorm.weight"]))
        q, k, v = (h @ w[at + f"self_attn.{x}_proj.weight"].T + w.get(at + f"self_attn.{x}_proj.bias", 0)
                   for x in "qkv")
        q, k = q.reshape(n, heads, width), k.reshape(n, groups, width)
        if at + "self_attn.q_norm.weight" in w:  # Qwen3
            q, k = norm(q, w[at + "self_attn.q_norm.weight"]), norm(k, w[at + "self_attn.k_norm.weight"])
        q, k, v = rope(q), r(rope(k)), r(v.reshape(n, groups, width))
        out = np.zeros((n, heads, width))
        for row in range(n):
            see = np.concatenate([np.arange(lo, hi) for lo, hi in rows[row]])
            for head_i in range(heads):
                g = head_i // (heads // groups)
                s = k[see, g] @ q[row, head_i] / math.sqrt(width)
                e = np.exp(s - s.max())
                out[row, head_i] = (e / e.sum()) @ v[see, g]
        x = x + r(out.reshape(n, heads * width)) @ w[at + "self_attn.o_proj.weight"].T
        h = r(norm(x, w[at + "post_attention_layernorm.weight"]))
        gate, up = h @ w[at + "mlp.gate_proj.weight"].T, h @ w[at + "mlp.up_proj.weight"].T
        x = x + r(gate / (1 + np.exp(-gate)) * up) @ w[at + "mlp.down_proj.weight"].T
    return r(norm(x, w["model.norm.weight"])) @ head.T


def numpy_loss(logits, targets):
    """loss_of in float64."""
    rows = [i for i, x in enumerate(targets) if x >= 0]
    log_p = log_softmax(logits[rows])
    return -np.mean([log_p[j, targets[i]] for j, i in enumerate(rows)])


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def check_gradients(model, loss64, seed=0):
    """Every gradient in the model against a central difference of loss64(weights), along one random direction each."""
    rng, weights = np.random.default_rng(seed), float64_weights(model)
    for name, w in model.named_parameters():
        g, kept, step = w.grad.double().numpy(), weights[name], 1e-5
        d = rng.standard_normal(g.shape)
        ends = []
        for sign in (1, -1):
            weights[name] = kept + sign * step * d
            ends.append(loss64(weights))
        weights[name] = kept
        error = abs((ends[0] - ends[1]) / (2 * step) - (g * d).sum())
        assert error <= 1e-4 * np.linalg.norm(g), (name, error, np.linalg.norm(g))


def relative(a, b):
    """max|a-b| / max|b|"""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


def write_safetensors(path, tensors, metadata=None):
    """F32 tensors in name order; header keys sorted, so that equal input gives equal bytes."""
    header, body = {}, b""
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    for name in sorted(tensors):
        a = tensors[name]
        a = a.detach().numpy() if isinstance(a, torch.Tensor) else np.asarray(a)
        a = np.ascontiguousarray(a, dtype="<f4")
        header[name] = {"dtype": "F32", "shape": list(a.shape), "data_offsets": [len(body), len(body) + a.nbytes]}
        body += a.tobytes()
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + body)
