#!/usr/bin/env python3
"""Make tests/data/t5: tiny random T5 models and what `transformers` says about them.

    python tools/make_t5_fixtures.py [OUT]        (default OUT: tests/data/t5 beside this directory)

    v10-f32    relu, head tied to the embedding and scaled; 3 encoder and 2 decoder layers; no <GIST> in its vocabulary
    v11-f32    gated gelu, a head of its own; <GIST> in added_tokens.json; the same weights as model.gguf, by the gguf
               package, too
    v11-bf16   the same shape of model in bf16

Each directory has expected.safetensors (README.md there describes it).  The masks of the three conditions are given to
the encoder and to cross-attention as they stand in the method's table; that no row sees more is checked by changing
what is hidden.  Versions are in tools/requirements.txt; two runs give the same bytes.
"""
import io
import json
import os
import shutil
import sys

import gguf
import numpy as np
import sentencepiece as spm
import torch
import transformers
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

import reference as ref
import t5_gguf
import tiny_tokenizers as tiny

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
transformers.utils.logging.disable_progress_bar()

PIECES, EXTRA, GREEDY, K, P = 48, 4, 10, 3, 7
MIN_MARGIN, MIN_DISTINCT = 0.02, 2

MODELS = {
    "v10-f32": dict(seed=100, dtype=torch.float32, gated=False, gist=False, d_model=18, d_ff=28, d_kv=6, num_heads=3,
                    num_layers=3, num_decoder_layers=2, buckets=8, distance=20),
    "v11-f32": dict(seed=200, dtype=torch.float32, gated=True, gist=True, d_model=16, d_ff=24, d_kv=10, num_heads=4,
                    num_layers=2, num_decoder_layers=2, buckets=32, distance=128),
    "v11-bf16": dict(seed=300, dtype=torch.bfloat16, gated=True, gist=True, d_model=24, d_ff=32, d_kv=8, num_heads=2,
                     num_layers=2, num_decoder_layers=3, buckets=16, distance=40),
}


def make_tokenizer(path, with_gist):
    """spiece.model as T5's: <pad>, </s>, <unk>, unigram pieces; the sentinels are said by tokenizer_config.json."""
    blob = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny.TEXT.splitlines()), model_writer=blob, model_type="unigram", vocab_size=PIECES,
        character_coverage=1.0, num_threads=1, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
        normalization_rule_name="identity")
    with open(os.path.join(path, "spiece.model"), "wb") as f:
        f.write(blob.getvalue())
    tiny.write_json(path, "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "extra_ids": EXTRA,
                                                    "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"})
    if with_gist:
        tiny.write_json(path, "added_tokens.json", {"<GIST>": PIECES + EXTRA})
    return PIECES + EXTRA + with_gist


def make_model(spec, seed, vocab):
    config = T5Config(
        vocab_size=vocab, d_model=spec["d_model"], d_ff=spec["d_ff"], d_kv=spec["d_kv"], num_heads=spec["num_heads"],
        num_layers=spec["num_layers"], num_decoder_layers=spec["num_decoder_layers"],
        relative_attention_num_buckets=spec["buckets"], relative_attention_max_distance=spec["distance"],
        feed_forward_proj="gated-gelu" if spec["gated"] else "relu", tie_word_embeddings=not spec["gated"],
        decoder_start_token_id=0, attn_implementation="eager")
    model = T5ForConditionalGeneration(config).eval()
    if spec["gated"]:  # transformers ties in any case; published v1.1 checkpoints have a head of their own
        model.lm_head = torch.nn.Linear(spec["d_model"], vocab, bias=False)
        model.own_head = True
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, w in sorted(model.named_parameters()):
            if w.dim() == 1:
                a = rng.uniform(0.7, 1.3, w.shape)
            elif "relative_attention_bias" in name:
                a = rng.standard_normal(w.shape) * 1.5
            else:
                gain = {"q": 0.8, "k": 0.8, "v": 1.0, "o": 0.8, "shared": 1.6, "lm_head": 1.6}.get(name.split(".")[-2], 1.1)
                gain /= np.sqrt(spec["d_kv"]) if name.split(".")[-2] == "q" else 1
                a = rng.standard_normal(w.shape) * gain / np.sqrt(w.shape[1])
                if name == "shared.weight":
                    a *= 2 if not spec["gated"] else 1
            w.copy_(torch.from_numpy(a.astype(np.float32)).to(spec["dtype"]).float())
    return model


def tensors_of(model, gated):
    """The tensors of a published checkpoint: the shared embedding once, the head where it is its own."""
    return {n: w.detach() for n, w in model.state_dict().items()
            if not n.endswith("embed_tokens.weight") and (gated or n != "lm_head.weight")}


def save_model(model, spec, path):
    save_file({n: w.to(spec["dtype"]).contiguous().clone() for n, w in tensors_of(model, spec["gated"]).items()},
              os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    config = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": model.config.vocab_size,
              "d_model": spec["d_model"], "d_ff": spec["d_ff"], "d_kv": spec["d_kv"], "num_heads": spec["num_heads"],
              "num_layers": spec["num_layers"], "num_decoder_layers": spec["num_decoder_layers"],
              "relative_attention_num_buckets": spec["buckets"], "relative_attention_max_distance": spec["distance"],
              "feed_forward_proj": "gated-gelu" if spec["gated"] else "relu", "tie_word_embeddings": not spec["gated"],
              "layer_norm_epsilon": 1e-6, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
              "is_encoder_decoder": True, "n_positions": 128, "dropout_rate": 0.1,
              "torch_dtype": str(spec["dtype"]).split(".")[1]}
    if not spec["gated"]:
        del config["tie_word_embeddings"], config["feed_forward_proj"]  # as the first checkpoints: at their defaults
    tiny.write_json(path, "config.json", config)
    for name in os.listdir(path):
        os.chmod(os.path.join(path, name), 0o644)


def write_gguf(model, spec, path):
    c, out = model.config, gguf.GGUFWriter(os.path.join(path, "model.gguf"), "t5")
    sp = spm.SentencePieceProcessor(model_file=os.path.join(path, "spiece.model"))
    t5_gguf.describe(out, sp, t5_gguf.vocabulary(sp, EXTRA, spec["gist"]), context=128, width=c.d_model, ff=c.d_ff,
                     layers=c.num_layers, decoder_layers=c.num_decoder_layers, heads=c.num_heads, head_dim=c.d_kv,
                     buckets=c.relative_attention_num_buckets)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, max(c.num_layers, c.num_decoder_layers))
    for name, w in tensors_of(model, True).items():
        out.add_tensor(names.get_name(name, try_suffixes=(".weight",)), w.float().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


# ---- what transformers says ----

def mask_of(rows, n):
    """rows: an interval of visible keys for each row -> what is added to the scores."""
    m = torch.full((1, 1, len(rows), n), torch.finfo(torch.float32).min)
    for i, (lo, hi) in enumerate(rows):
        m[0, 0, i, lo:hi] = 0
    return m


def spans(p, k, n, condition):
    """gisting.md's table: intervals of the encoder's rows, and the one of cross-attention."""
    first = {"gist": p, "pos_control": 0, "neg_control": p + k}[condition]
    before = n if condition == "pos_control" else p + k
    return [(0, before)] * (p + k) + [(first, n)] * (n - p - k), (first, n)


def forward(model, source, target, rows, cross, keep=None):
    """Logits [T,V] and encoder output; keep: a list that gets (keys, values) of each encoder layer [n,H,D]."""
    n, hooks = len(source), []
    if keep is not None:
        for block in model.encoder.block:
            att, pair = block.layer[0].SelfAttention, []
            keep.append(pair)
            for part in (att.k, att.v):
                hooks.append(part.register_forward_hook(
                    lambda _, __, y, pair=pair, att=att: pair.append(y[0].reshape(n, att.n_heads, -1).clone())))
    with torch.no_grad():
        logits, out = with_graph(model, source, target, rows, cross)
    for h in hooks:
        h.remove()
    return logits, out


def with_graph(model, source, target, rows, cross):
    n = len(source)
    out = model.encoder(input_ids=torch.tensor([source]), attention_mask=mask_of(rows, n)).last_hidden_state
    dec = model.decoder(input_ids=torch.tensor([target]), encoder_hidden_states=out, use_cache=False,
                        encoder_attention_mask=mask_of([cross] * len(target), n)).last_hidden_state
    if model.config.scale_decoder_outputs:
        dec = dec * model.model_dim ** -0.5
    return model.lm_head(dec)[0], out[0]


def gradients(model, source, target, condition, t):
    """Of the mean cross-entropy of the target, each row predicting the next id and the last one </s>."""
    model.zero_grad()
    logits, _ = with_graph(model, source, target, *spans(P, K, len(source), condition))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(target[1:] + [1]))
    loss.backward()
    t[f"{condition}.loss"] = [float(loss.detach())]
    for name, w in tensors_of(model, hasattr(model, "own_head")).items():
        g = dict(model.named_parameters())[name].grad
        t[f"{condition}.grad.{name}"] = torch.zeros_like(w) if g is None else g.clone()


def check_hidden(model, source, target, p, k, condition):
    """What a condition hides moves nothing; what it shows does."""
    rows, cross = spans(p, k, len(source), condition)
    logits, out = forward(model, source, target, rows, cross)
    other = [(t + 5) % 40 + 3 for t in source[:p]] + source[p:]
    moved, moved_out = forward(model, other, target, rows, cross)
    assert torch.equal(moved, logits) == (condition == "neg_control")
    other = source[:p + k] + [(t + 5) % 40 + 3 for t in source[p + k:]]
    moved, moved_out = forward(model, other, target, rows, cross)
    assert torch.equal(moved_out[:p + k], out[:p + k]) == (condition != "pos_control")
    if condition == "pos_control":  # transformers' own masks
        with torch.no_grad():
            plain = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([target])).logits[0]
        assert ref.relative(logits, plain) < 1e-5


def expected_of(model, gist_id, seed, grads):
    t, rng = {}, np.random.default_rng(seed + 1000)
    body, target = rng.integers(3, PIECES, P + 9).tolist(), [0] + rng.integers(3, PIECES, 8).tolist()
    source = body[:P] + [gist_id] * K + body[P:] + [1]
    t["source"], t["target"], t["p"] = source, target, [P]
    for c in ref.CONDITIONS:
        check_hidden(model, source, target, P, K, c)
        rows, cross = spans(P, K, len(source), c)
        t[f"{c}.logits"], t[f"{c}.output"] = forward(model, source, target, rows, cross)
        if grads:
            gradients(model, source, target, c, t)
    keep = []
    _, out = forward(model, source[:P + K], target, [(0, P + K)] * (P + K), (0, P + K), keep)
    for i, (k, v) in enumerate(keep):
        t[f"gist.key.{i}"], t[f"gist.value.{i}"] = k[P:], v[P:]
    t["gist.rows"] = out[P:]
    assert ref.relative(out[P:], t["gist.output"][P:P + K]) < 1e-5
    ids, margins = [0], []
    for _ in range(GREEDY):
        top = forward(model, source, ids, *spans(P, K, len(source), "gist"))[0][-1].topk(2)
        margins.append(float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
    if min(margins) < MIN_MARGIN or len(set(ids)) < MIN_DISTINCT or 1 in ids or gist_id in ids:
        raise ValueError
    t["gist.greedy"] = ids[1:]
    return t


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "tests", "data", "t5")
    for name, spec in MODELS.items():
        path = os.path.join(out, name)
        for seed in range(spec["seed"], spec["seed"] + 90):
            shutil.rmtree(path, ignore_errors=True)
            os.makedirs(path)
            vocab = make_tokenizer(path, spec["gist"])
            model = make_model(spec, seed, vocab)
            save_model(model, spec, path)
            gist_id = vocab - 1
            if not spec["gist"]:  # a row of its own: the mean of the others, in embedding and head
                gist_id, rows = vocab, torch.cat([model.shared.weight, model.shared.weight.mean(0, keepdim=True)])
                model.resize_token_embeddings(vocab + 1, mean_resizing=False)
                one = torch.nn.Parameter(rows.detach())
                for part in (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens, model.lm_head):
                    part.weight = one
            try:
                t = expected_of(model, gist_id, seed, spec["dtype"] == torch.float32)
                break
            except ValueError:
                continue
        else:
            raise SystemExit(f"{name}: no seed gives clear greedy ids")
        if name == "v11-f32":
            write_gguf(model, spec, path)
        ref.write_safetensors(os.path.join(path, "expected.safetensors"), t, {"gist_id": str(gist_id)})
        print(f"{name}: seed {seed}, V {vocab}, gist {gist_id}")
    total = sum(os.path.getsize(os.path.join(f, n)) for f, _, names in os.walk(out) for n in names)
    print(f"{total} bytes in all")
    assert total < 900 * 1024


if __name__ == "__main__":
    main()
