#!/usr/bin/env python3
"""Make tests/data/families: tiny random models of each family and what `transformers` and PyTorch say about them.

    python tools/make_family_fixtures.py [OUT]        (default OUT: tests/data/families beside this directory)

Part 1, for the engine: llama31 (scaled rotary frequencies), mistral (sliding window), qwen2 (biases), qwen3 (norms of
heads), each as a Hugging Face directory with expected.safetensors, and the same weights as model.gguf, written by the
gguf package the way llama.cpp's converter does.  Part 2, for training: grad-qwen2 and grad-qwen3.
Shapes and conventions are written down in tests/data/families/README.md, versions in tools/requirements.txt.
Two runs give the same bytes.  Every expected value is checked here by an independent way before it is written.
"""
import copy
import json
import math
import os
import shutil
import sys

import gguf
import numpy as np
import sentencepiece as spm
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig, LlamaForCausalLM
from transformers.models.mistral import MistralConfig, MistralForCausalLM
from transformers.models.qwen2 import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM

import reference as ref
import tiny_tokenizers as tiny

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
transformers.utils.logging.disable_progress_bar()

GREEDY = 12
STRIDE = 5                          # logits are kept for ids 0, 5, 10, ...
MIN_MARGIN, MIN_DISTINCT = 0.05, 5  # greedy ids are not decided by rounding, nor one id again and again
MAX_BF16 = 0.012                    # bf16 kernels alone move no logit by more

PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
SHAPE = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=8, rms_norm_eps=1e-5, tie_word_embeddings=False, rope_parameters=PLAIN)
MODELS = {
    "llama31": dict(seed=15, arch="llama", tokenizer="sentencepiece-small", classes=(LlamaConfig, LlamaForCausalLM),
                    shape=dict(SHAPE, rope_parameters={
                        "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 64})),
    "mistral": dict(seed=8, arch="llama", tokenizer="sentencepiece-small",
                    classes=(MistralConfig, MistralForCausalLM), shape=dict(SHAPE, sliding_window=6)),
    "qwen2": dict(seed=2, arch="qwen2", tokenizer="merges", classes=(Qwen2Config, Qwen2ForCausalLM),
                  shape=dict(SHAPE, hidden_size=24, head_dim=6, rms_norm_eps=1e-6, tie_word_embeddings=True)),
    "qwen3": dict(seed=29, arch="qwen3", tokenizer="sentencepiece-small", classes=(Qwen3Config, Qwen3ForCausalLM),
                  shape=dict(SHAPE, head_dim=12, rms_norm_eps=1e-6)),
}
GRAD = dict(SHAPE, hidden_size=8, intermediate_size=10, head_dim=4)
GRAD_MODELS = {
    "grad-qwen2": dict(seed=41, classes=(Qwen2Config, Qwen2ForCausalLM), shape=dict(GRAD, head_dim=2)),
    "grad-qwen3": dict(seed=42, classes=(Qwen3Config, Qwen3ForCausalLM), shape=GRAD),
}


# ---- models ----

def make_model(spec, seed, vocab, bos, eos, dtype):
    """Float32, values rounded to dtype.  Norms in [0.7,1.3], biases in [-0.5,0.5]; projections so that attention is peaked and logits spread by 1-3."""
    make_config, make_net = spec["classes"]
    config = make_config(vocab_size=vocab, bos_token_id=bos, eos_token_id=eos, pad_token_id=None,
                         max_position_embeddings=256, attn_implementation="eager", **spec["shape"])
    model = make_net(config).eval()
    rng = np.random.default_rng(seed)
    gain = {"q_proj": 1.1, "k_proj": 1.1, "v_proj": 1.0, "o_proj": 0.8, "gate_proj": 1.2, "up_proj": 1.2,
            "down_proj": 0.8, "lm_head": 1.6, "embed_tokens": 1.6}
    with torch.no_grad():
        for name, w in sorted(model.named_parameters()):
            kind = name.split(".")[-2]
            if name.endswith(".bias"):
                a = rng.uniform(-0.5, 0.5, w.shape)
            elif w.dim() == 1:
                a = rng.uniform(0.7, 1.3, w.shape)
            else:
                a = rng.standard_normal(w.shape) * gain[kind] / np.sqrt(w.shape[1])
            w.copy_(torch.from_numpy(a.astype(np.float32)).to(dtype))
    return model


def load_f32(path):
    """The model as any user would load it, its weights upcast to float32."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    for name, w in model.named_parameters():
        assert w.dtype == torch.float32, name
    return model


def save_model(model, dtype, path):
    copy.deepcopy(model).to(dtype).save_pretrained(path)
    for name in os.listdir(path):
        os.chmod(os.path.join(path, name), 0o644)


# ---- GGUF, as llama.cpp's converter writes it ----

def paired(w, heads):
    """Rows of q or k with the two halves of a rotary pair side by side."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def rope_factors(config):
    p, factors = config.rope_parameters, []
    freqs = 1.0 / (p["rope_theta"] ** (torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim))
    low, high, original = p["low_freq_factor"], p["high_freq_factor"], p["original_max_position_embeddings"]
    for freq in freqs:
        length = 2 * math.pi / freq
        if length < original / high:
            factors.append(1)
        elif length > original / low:
            factors.append(p["factor"])
        else:
            smooth = (original / length - low) / (high - low)
            factors.append(1 / ((1 - smooth) / p["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def add_vocabulary(out, path, tok):
    if os.path.exists(os.path.join(path, "tokenizer.model")):
        sp = spm.SentencePieceProcessor(model_file=os.path.join(path, "tokenizer.model"))
        kinds = gguf.TokenType
        out.add_tokenizer_model("llama")
        out.add_tokenizer_pre("default")
        out.add_token_list([sp.id_to_piece(i).encode() for i in range(tok.size)])
        out.add_token_scores([sp.get_score(i) for i in range(tok.size)])
        out.add_token_types([kinds.UNKNOWN if sp.is_unknown(i) else kinds.CONTROL if sp.is_control(i) else kinds.NORMAL
                             for i in range(tok.size)])
        out.add_unk_token_id(sp.unk_id())
        out.add_add_space_prefix(True)
    else:
        with open(os.path.join(path, "vocab.json")) as f:
            vocab = json.load(f)
        with open(os.path.join(path, "merges.txt")) as f:
            merges = f.read().splitlines()[1:]
        out.add_tokenizer_model("gpt2")
        out.add_tokenizer_pre("gpt-2")
        out.add_token_list(sorted(vocab, key=vocab.get))
        out.add_token_types([gguf.TokenType.CONTROL if i == tok.eos else gguf.TokenType.NORMAL
                             for i in range(tok.size)])
        out.add_token_merges(merges)
    out.add_bos_token_id(tok.bos)
    out.add_eos_token_id(tok.eos)
    out.add_add_bos_token(tok.adds_bos)


def write_gguf(model, spec, tok, path):
    config, arch = model.config, spec["arch"]
    out = gguf.GGUFWriter(os.path.join(path, "model.gguf"), arch)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        out.add_key_length(config.head_dim)
        out.add_value_length(config.head_dim)
    if arch == "llama":
        out.add_vocab_size(config.vocab_size)
        out.add_rope_dimension_count(config.head_dim)
    if getattr(config, "sliding_window", None):
        out.add_sliding_window(config.sliding_window)
    add_vocabulary(out, path, tok)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), config.num_hidden_layers)
    for name, w in model.named_parameters():
        w = w.detach().to(torch.float32).numpy()
        if arch == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            w = paired(w, config.num_attention_heads if ".q_proj" in name else config.num_key_value_heads)
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert gguf_name, name
        if w.ndim == 1:
            out.add_tensor(gguf_name, w)
        else:
            kind = gguf.GGMLQuantizationType.BF16
            out.add_tensor(gguf_name, gguf.quants.quantize(w, kind), raw_dtype=kind)
    if config.rope_parameters["rope_type"] == "llama3":
        out.add_tensor("rope_freqs.weight", rope_factors(config))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


# ---- part 1: expected values ----

def rows_of(model, p, k, n, condition):
    """Rows under a condition and the model's window; p None: plain causal."""
    rows = ref.causal(n) if p is None else ref.spans(p, k, n, condition)
    window = getattr(model.config, "sliding_window", None)
    return ref.windowed(rows, window) if window else rows


def expected_of(model, gist_id, low, prefix, seed):
    """Tensors of one expected.safetensors; ValueError when the seed's greedy ids are not clear."""
    t, rng, vocab = {}, np.random.default_rng(seed + 1000), model.config.vocab_size
    ids = prefix + rng.integers(low, min(vocab, 256) - 1, 19).tolist()
    with torch.no_grad():
        plain = model(input_ids=torch.tensor([ids])).logits[0]  # transformers' own mask, window and all
        assert ref.relative(ref.forward(model, ids, rows_of(model, None, 0, len(ids), None))[0], plain) < 1e-5
    t["full.ids"], t["full.logits"] = ids, plain[:, ::STRIDE]
    p, k = 7, 3
    ids = ids[:p] + [gist_id] * k + ids[p:p + 9]
    t["gist.ids"], t["gist.p"] = ids, [p]
    bf16 = 0.0
    for c in ref.CONDITIONS:
        rows = rows_of(model, p, k, len(ids), c)
        with torch.no_grad():
            logits = ref.forward(model, ids, rows)[0]
        exact = ref.numpy_forward(model, ids, rows)
        assert ref.relative(logits, exact) < 1e-5, c
        bf16 = max(bf16, ref.relative(ref.numpy_forward(model, ids, rows, kernels_bf16=True), exact))
        t[f"{c}.logits"] = logits[:, ::STRIDE]
    with torch.no_grad():  # a sliding cache keeps the last rows only: ask right behind the gist
        _, keys, values = ref.forward(model, ids[:p + k], rows_of(model, p, k, p + k, "gist"))
    for i, (key, value) in enumerate(zip(keys, values)):
        t[f"gist.key.{i}"], t[f"gist.value.{i}"] = key[-k:], value[-k:]
    out, margins = ref.greedy(model, ids, lambda n: rows_of(model, p, k, n, "gist"), GREEDY)
    if min(margins) < MIN_MARGIN or len(set(out)) < MIN_DISTINCT or bf16 > MAX_BF16 or min(out) < low:
        raise ValueError(f"margin {min(margins):.4f}, bf16 {bf16:.1e}, ids {out}")
    t["gist.greedy"] = out
    return t, min(margins), bf16


def make_engine_fixture(out, name, spec):
    path = os.path.join(out, name)
    for seed in range(spec["seed"], spec["seed"] + 2000):
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        tok = tiny.make(spec["tokenizer"], path)
        model = make_model(spec, seed, tok.size, tok.bos, tok.eos, torch.bfloat16)
        f32, gist_id = (model, tok.gist) if tok.gist is not None else (ref.with_gist_row(model), tok.size)
        try:
            expected_of(f32, gist_id, 4, [tok.bos] if tok.adds_bos else [], seed)
            break
        except ValueError:
            continue
    save_model(model, torch.bfloat16, path)
    f32 = load_f32(path)
    write_gguf(f32, spec, tok, path)
    if tok.gist is None:
        f32 = ref.with_gist_row(f32)
    t, margin, bf16 = expected_of(f32, gist_id, 4, [tok.bos] if tok.adds_bos else [], seed)
    ref.write_safetensors(os.path.join(path, "expected.safetensors"), t, {"gist_id": str(gist_id)})
    print(f"{name}: seed {seed}, V {tok.size}, gist {gist_id}, least margin {margin:.3f}, bf16 kernels differ by "
          f"{bf16:.1e}")


# ---- part 2: gradients ----

def make_gradients(out, name, spec):
    """k3: conditions gist and pos_control; every gradient by name."""
    path, vocab = os.path.join(out, name), 24
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    save_model(make_model(spec, spec["seed"], vocab, 1, 2, torch.float32), torch.float32, path)
    model, t, rng = load_f32(path), {}, np.random.default_rng(spec["seed"] + 100)
    p, k = 5, 3
    body = rng.integers(3, vocab - 1, 12).tolist()
    ids = [1] + body[:p - 1] + [vocab - 1] * k + body[p - 1:]
    targets = [-1] * (len(ids) - 5) + ids[-4:] + [2]
    t["ids"], t["p"], t["targets"] = ids, [p], targets
    for c in ("gist", "pos_control"):
        rows = ref.spans(p, k, len(ids), c)
        model.zero_grad()
        loss = ref.loss_of(ref.forward(model, ids, rows)[0], targets)
        loss.backward()
        ref.check_gradients(model, lambda w, rows=rows: ref.numpy_loss(
            ref.numpy_forward(model, ids, rows, weights=w), targets))
        t[f"{c}.loss"] = loss.reshape(1)
        for weight, w in model.named_parameters():
            t[f"{c}.grad.{weight}"] = w.grad.clone()
    ref.write_safetensors(os.path.join(path, "expected.safetensors"), t)
    print(f"{name}: loss {float(loss.detach()):.3f}")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "tests", "data", "families")
    os.makedirs(out, exist_ok=True)
    for name, spec in MODELS.items():
        make_engine_fixture(out, name, spec)
    for name, spec in GRAD_MODELS.items():
        make_gradients(out, name, spec)
    total = sum(os.path.getsize(os.path.join(f, n)) for f, _, names in os.walk(out) for n in names)
    print(f"{total} bytes in all")
    assert total < 300 * 1024


if __name__ == "__main__":
    main()
