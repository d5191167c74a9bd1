"""Checks GGUF files and directories that `gist convert` writes with other hands: gguf, transformers, llama.cpp.

    venv/bin/python tools/check_gguf.py [build/release/gist] [WORKDIR]
    venv/bin/python tools/check_gguf.py build/release/gist WORKDIR models/demo rows.jsonl

Small random models of each family (seed 5) are converted to every type and back:

    gguf          reads every file; f32 tensors equal the model's (wq, wk of llama with rotary pairs side by side);
                  q8_0, q4_0 blocks equal its own encoder's; tensors it dequantizes equal those of the directory that
                  `gist convert FILE.gguf DIR` makes, bit for bit; the error of q4_K is shown
    transformers  loads the directories: same weights, same token ids
    llama_cpp     loads the files: same ids for a text, same greedy ids as transformers in f32; mean KL of its next-token
                  distributions from those of transformers with the same (dequantized) weights, at most 1e-3; the KL
                  from the f32 weights is shown: what the type costs.  Left out when the package is missing.

With a model directory and rows {instruction, input}, llama.cpp answers the first rows of ten prompts from the model's own
GGUF files: token ids from transformers, since a split of ours has no name there; the same KLs, greedy text in f32.

Ran with CPython 3.11, gguf 0.19, torch 2.15, transformers 5.23, llama-cpp-python 0.3.36.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
import transformers

import tiny_tokenizers

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

TYPES = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_K"]
TEXT = "the hen had a list of all the hats in the inn, and the man sat on it at noon"
MAKE = {"sentencepiece": lambda d: tiny_tokenizers.make_sentencepiece(d, False), "json": tiny_tokenizers.make_json}
SHAPE = dict(num_hidden_layers=2, hidden_size=256, intermediate_size=512, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.06)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
MODELS = {
    "llama": ("LlamaConfig", "sentencepiece", dict(tie_word_embeddings=False)),
    "llama3": ("LlamaConfig", "json", dict(tie_word_embeddings=True, head_dim=32, rope_parameters=LLAMA3)),
    "mistral": ("MistralConfig", "json", dict(sliding_window=None)),
    "qwen2": ("Qwen2Config", "qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", "qwen2", dict(tie_word_embeddings=False, head_dim=128)),
}
failed = []


def check(ok, what):
    print(("ok    " if ok else "WRONG ") + what)
    if not ok:
        failed.append(what)


def make_model(name, path):
    config_name, tokenizer, extra = MODELS[name]
    os.makedirs(path)
    if tokenizer in MAKE:
        tiny = MAKE[tokenizer](path)
        size, bos, eos = tiny.size, tiny.bos, tiny.eos
    else:
        here = os.path.join(os.path.dirname(__file__), "..", "tests", "data", "token", tokenizer)
        shutil.copytree(here, path, dirs_exist_ok=True)
        tok = transformers.AutoTokenizer.from_pretrained(path)
        size, bos, eos = len(tok), None, tok.eos_token_id
    config = getattr(transformers, config_name)(vocab_size=size, bos_token_id=bos, eos_token_id=eos, **SHAPE, **extra)
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.dim() == 1:  # norms and biases that do something
                p.add_(0.1 * torch.randn_like(p))
    model.generation_config = transformers.GenerationConfig(bos_token_id=bos, eos_token_id=eos)
    model.save_pretrained(path)


def convert(gist, *args):
    done = subprocess.run([gist, "convert", "-q", *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"gist convert {' '.join(args)}: {done.stderr}")


def paired(w, heads):
    """Rows as llama.cpp has them: (h, 2j+s) = (h, s D/2 + j)."""
    n, k = w.shape
    return w.reshape(heads, 2, n // heads // 2, k).swapaxes(1, 2).reshape(n, k)


def gguf_names(model):
    arch = model.config.model_type.upper().replace("MISTRAL", "LLAMA")
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch), model.config.num_hidden_layers)
    return lambda n: names.get_name(n, try_suffixes=(".weight", ".bias"))


def expected_tensors(model):
    config, name_of = model.config, gguf_names(model)
    out = {}
    for n, p in model.state_dict().items():
        if n == "lm_head.weight" and config.tie_word_embeddings:
            continue
        w = p.float().numpy()
        if config.model_type in ("llama", "mistral") and ("q_proj" in n or "k_proj" in n):
            w = paired(w, config.num_attention_heads if "q_proj" in n else config.num_key_value_heads)
        out[name_of(n)] = w
    return out


def check_tensors(name, kind, path, want):
    reader = gguf.GGUFReader(path)
    found = {t.name: t for t in reader.tensors}
    extra = set(found) - set(want) - {"rope_freqs.weight"}
    check(not extra and set(want) <= set(found), f"{name} {kind}: the tensors' names")
    worst, same = 0.0, True
    for n, w in want.items():
        t = found[n]
        got = gguf.quants.dequantize(t.data, t.tensor_type).reshape(w.shape)
        if kind in ("q8_0", "q4_0") and w.ndim == 2:
            same &= bool(np.array_equal(t.data, gguf.quants.quantize(w, t.tensor_type)))
        elif kind == "f32" or w.ndim == 1:
            same &= bool(np.array_equal(got, w))
        worst = max(worst, float(np.sqrt(np.mean((got - w) ** 2) / np.mean(w ** 2))))
    check(same, f"{name} {kind}: tensors as the gguf package has them (largest relative rms error {worst:.2e})")
    return {n: gguf.quants.dequantize(t.data, t.tensor_type) for n, t in found.items()}


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double()


def kl(p, q):
    p, q = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def greedy(model, ids, count):
    ids = list(ids)
    for _ in range(count):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    return ids


def check_llama_cpp(name, kind, path, model, original, tok):
    llm = llama_cpp.Llama(path, n_ctx=256, n_threads=1, logits_all=True, verbose=False)
    ids = llm.tokenize(TEXT.encode(), add_bos=True, special=False)
    want = tok(TEXT).input_ids
    check(ids == want, f"{name} {kind}: llama.cpp's ids of a text")
    llm.eval(want)
    theirs = torch.tensor(np.array(llm.scores[:len(want)])).double()
    same_weights, from_f32 = kl(logits_of(model, want), theirs), kl(logits_of(original, want), theirs)
    check(same_weights <= 1e-3, f"{name} {kind}: llama.cpp, mean KL {same_weights:.1e} with the same weights "
                                f"({from_f32:.1e} from f32)")
    if kind == "f32":
        text = greedy(model, want, 24)
        out = list(want)
        for _ in range(24):
            out.append(int(np.argmax(llm.scores[len(out) - 1])))
            llm.eval([out[-1]])
        check(out == text, f"{name} {kind}: llama.cpp's greedy ids")
    llm.close()


def check_model(gist, name, work):
    src = os.path.join(work, name)
    make_model(name, src)
    model = transformers.AutoModelForCausalLM.from_pretrained(src, dtype=torch.float32)
    tok = transformers.AutoTokenizer.from_pretrained(src)
    want = expected_tensors(model)
    for kind in TYPES:
        path, back = f"{src}-{kind}.gguf", f"{src}-{kind}"
        convert(gist, src, path, "--type", kind)
        dequantized = check_tensors(name, kind, path, want)
        convert(gist, path, back, "--type", "f32")
        again = transformers.AutoModelForCausalLM.from_pretrained(back, dtype=torch.float32)
        mine = expected_tensors(again)
        check(all(np.array_equal(mine[n], dequantized[n].reshape(mine[n].shape)) for n in mine),
              f"{name} {kind}: the directory made of it has the dequantized weights, bit for bit")
        tok2 = transformers.AutoTokenizer.from_pretrained(back)
        check(tok2(TEXT).input_ids == tok(TEXT).input_ids, f"{name} {kind}: its tokenizer gives the same ids")
        once = os.path.join(work, "once.gguf")
        convert(gist, back, once, "--type", kind, "--force")
        check(kind not in ("f32", "bf16", "f16") or
              [t.data.tobytes() for t in gguf.GGUFReader(once).tensors] ==
              [t.data.tobytes() for t in gguf.GGUFReader(path).tensors], f"{name} {kind}: and back, the same bytes")
        if kind == "f32":
            a, b = logits_of(model, tok(TEXT).input_ids), logits_of(again, tok(TEXT).input_ids)
            check(torch.equal(a, b), f"{name} {kind}: the same logits")
        if llama_cpp:
            check_llama_cpp(name, kind, path, again, model, tok)


def read_prompts(path, tok, count):
    """Token ids of the first row of each prompt, as the template `paper` has them."""
    ids, last = [], None
    for line in open(path, encoding="utf-8"):
        row = json.loads(line)
        if row["instruction"] != last and len(ids) < count:
            last = row["instruction"]
            ids.append(tok(f"Instruction: {last}").input_ids +
                       tok(f"Input: {row['input']}\nOutput:", add_special_tokens=False).input_ids)
    return ids


def check_given(gist, src, rows, work):
    """A model that can do something: the distributions and answers of llama.cpp and of transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(src, dtype=torch.float32)
    tok = transformers.AutoTokenizer.from_pretrained(src)
    prompts = read_prompts(rows, tok, 10)
    for kind in TYPES:
        path, back = os.path.join(work, f"given-{kind}.gguf"), os.path.join(work, f"given-{kind}")
        convert(gist, src, path, "--type", kind, "--force")
        convert(gist, path, back, "--type", "f32", "--force")
        again = transformers.AutoModelForCausalLM.from_pretrained(back, dtype=torch.float32)
        llm = llama_cpp.Llama(path, n_ctx=512, n_threads=2, logits_all=True, verbose=False)
        same, cost, equal = [], [], 0
        for ids in prompts:
            llm.reset()
            llm.eval(ids)
            theirs = torch.tensor(np.array(llm.scores[:len(ids)])).double()
            same.append(kl(logits_of(again, ids), theirs))
            cost.append(kl(logits_of(model, ids), theirs))
            out = list(ids)
            while len(out) < len(ids) + 20 and out[-1] != tok.eos_token_id:
                out.append(int(np.argmax(llm.scores[len(out) - 1])))
                llm.eval([out[-1]])
            equal += out == greedy(model, ids, len(out) - len(ids))
        check(np.mean(same) <= 1e-3,
              f"{kind}: llama.cpp, mean KL {np.mean(same):.1e} with the same weights, {np.mean(cost):.1e} from f32")
        check(kind != "f32" or equal == len(prompts), f"{kind}: {equal} of {len(prompts)} greedy answers are the f32 model's")
        llm.close()


def main():
    gist = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build/release/gist")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = sys.argv[2] if len(sys.argv) > 2 else temporary
        if len(sys.argv) > 4:
            check_given(gist, sys.argv[3], sys.argv[4], work)
        else:
            for name in MODELS:
                check_model(gist, name, work)
    if not llama_cpp:
        print("llama_cpp is not installed: left out")
    print(f"{len(failed)} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
