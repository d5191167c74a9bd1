#!/usr/bin/env python3
"""Make tests/data/torchbin: files of torch.save in the layouts that are read or refused, and a small weight diff.

    single/pytorch_model.bin    the tensors of tests/data/format/single, as torch.save writes them
    sharded/                    the same in two shards with an index
    layouts.bin                 tied, sliced, transposed and permuted tensors over shared storages
    zip64.bin                   layouts.bin with every size and offset of the zip directory in zip64 fields
    deflated.bin, old.bin, protocol4.bin, parameter.bin, call.bin, nested.bin      refused
    t5/pytorch_model.bin        a tiny T5 with a cut vocabulary, three names over one embedding
    base/                       "LLaMA-7B": tests/data/llama/mha-f32 rounded to f16, without its <GIST> row; inv_freq buffers
    diff/                       the diff of mha-f32 from it, f32 in three shards, in the layout of the paper's checkpoints:
                                GistLlamaForCausalLM, tokenizer.model, added_tokens.json, inv_freq buffers that are zero
    sums.json                   sums over the recovered state dict, by torch

Adding base and diff gives mha-f32 back bit for bit, which is checked here.  torch.load reads every file that is not meant to
be refused and gives the tensors that went in.  Run from the repository's root with torch 2.15.0, transformers 5.23.0,
safetensors 0.8.0, CPython 3.11.  Also writes tests/fuzz/corpus/torchbin and tests/fuzz/corpus/pickle.
"""
import collections
import json
import os
import shutil
import struct
import zipfile

import torch
from safetensors.torch import load_file

from make_format_fixtures import weights

ROOT = "tests/data/torchbin"
TUNED = "tests/data/llama/mha-f32"
HEADS, DIM = 3, 4


def path_of(*parts):
    path = os.path.join(ROOT, *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def save(tensors, path, **options):
    torch.save(collections.OrderedDict(tensors), path, **options)
    back = torch.load(path)
    assert list(back) == list(tensors)
    assert all(torch.equal(back[n], tensors[n]) for n in tensors)


def save_index(shards, folder, metadata):
    index = {"metadata": metadata, "weight_map": {}}
    for n, part in enumerate(shards, 1):
        name = f"pytorch_model-{n:05}-of-{len(shards):05}.bin"
        save(part, path_of(folder, name))
        index["weight_map"].update({key: name for key in part})
    with open(path_of(folder, "pytorch_model.bin.index.json"), "w") as f:
        json.dump(index, f, indent=2)
        f.write("\n")


def layouts():
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8 - 1
    state = torch.nn.Linear(6, 4, bias=False).state_dict()  # with _metadata behind it
    state["weight"] = whole
    state["tied"] = whole
    state["rows"] = whole[1:3]
    state["transposed"] = whole.t()
    state["columns"] = whole[:, 2:5]
    state["permuted"] = whole.reshape(2, 2, 6).permute(2, 0, 1)
    state["one"] = whole[2, 3]
    state["long"] = torch.arange(40000, dtype=torch.int32)[::10000].to(torch.bfloat16)
    state["empty"] = whole[:0]
    return state


def zip64(source, target):
    """The same archive with a directory that says everything in 64 bits."""
    with open(source, "rb") as f:
        data = f.read()
    with zipfile.ZipFile(source) as z:
        infos, start = z.infolist(), z.start_dir
    directory = b""
    for i in infos:
        name = i.filename.encode()
        extra = struct.pack("<HHQQQ", 1, 24, i.file_size, i.compress_size, i.header_offset)
        directory += struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 45, 0, 45, 0, i.flag_bits, 0, 0, 0, i.CRC, 0xffffffff,
                                 0xffffffff, len(name), len(extra), 0, 0, 0, 0, 0xffffffff) + name + extra
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, len(infos), len(infos), len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xffff, 0xffff, 0xffffffff, 0xffffffff, 0)
    with open(target, "wb") as f:
        f.write(data[:start] + directory + end64 + locator + end)


class Call:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def write_refused(state):
    with zipfile.ZipFile(path_of("layouts.bin")) as z, \
            zipfile.ZipFile(path_of("deflated.bin"), "w", zipfile.ZIP_DEFLATED) as out:
        for i in z.infolist():
            out.writestr(zipfile.ZipInfo(i.filename), z.read(i), zipfile.ZIP_DEFLATED)
    small = collections.OrderedDict(a=state["rows"].clone())
    torch.save(small, path_of("old.bin"), _use_new_zipfile_serialization=False)
    torch.save(small, path_of("protocol4.bin"), pickle_protocol=4)
    torch.save(collections.OrderedDict(a=torch.nn.Parameter(small["a"])), path_of("parameter.bin"))
    torch.save(collections.OrderedDict(small, b=Call()), path_of("call.bin"))
    torch.save({"model": small, "step": 3}, path_of("nested.bin"))


def write_t5():
    from transformers import T5Config, T5ForConditionalGeneration
    torch.manual_seed(5)
    model = T5ForConditionalGeneration(T5Config(vocab_size=33, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
                                                relative_attention_num_buckets=4, tie_word_embeddings=True))
    state = model.state_dict()
    assert state["shared.weight"].data_ptr() == state["encoder.embed_tokens.weight"].data_ptr()
    save(state, path_of("t5", "pytorch_model.bin"))


def write_json(folder, name, value):
    with open(path_of(folder, name), "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def rotary(layer):
    return f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"


def write_diff():
    tuned = load_file(f"{TUNED}/model.safetensors")
    with open(f"{TUNED}/config.json") as f:
        config = json.load(f)
    V, L = config["vocab_size"] - 1, config["num_hidden_layers"]
    order = ["model.embed_tokens.weight"]
    for i in range(L):
        order += [f"model.layers.{i}.{n}" for n in (
            "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
            "self_attn.o_proj.weight", "self_attn.rotary_emb.inv_freq", "mlp.gate_proj.weight",
            "mlp.down_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight", "post_attention_layernorm.weight")]
    order += ["model.norm.weight", "lm_head.weight"]
    for i in range(L):
        tuned[rotary(i)] = 1.0 / (10000 ** (torch.arange(0, DIM, 2).float() / DIM))
    assert sorted(order) == sorted(tuned)

    base, diff = {}, {}
    for n in order:
        rows = tuned[n][:V] if tuned[n].shape[0] == V + 1 else tuned[n]
        base[n] = rows.clone() if "inv_freq" in n else rows.to(torch.float16)
        old = torch.zeros_like(tuned[n])
        old[:len(rows)] = base[n].float()
        diff[n] = tuned[n] - old
        assert torch.equal(diff[n] + old, tuned[n]), n
    save(base, path_of("base", "pytorch_model.bin"))
    part = (len(order) + 2) // 3
    save_index([{n: diff[n] for n in order[i:i + part]} for i in range(0, len(order), part)], "diff",
               {"total_size": sum(t.numel() * 4 for t in diff.values())})

    write_json("diff", "config.json", {**config, "_name_or_path": "llama-7b", "architectures": ["GistLlamaForCausalLM"],
                                       "pad_token_id": -1, "transformers_version": "4.28.0.dev0"})
    write_json("base", "config.json", {**config, "vocab_size": V, "torch_dtype": "float16", "pad_token_id": -1,
                                       "transformers_version": "4.27.0.dev0"})
    for name in ("tokenizer.model", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json",
                 "generation_config.json"):
        shutil.copy(f"{TUNED}/{name}", path_of("diff", name))
    for name in ("tokenizer.model", "generation_config.json"):
        shutil.copy(f"{TUNED}/{name}", path_of("base", name))
    write_json("base", "special_tokens_map.json", {})
    write_json("base", "tokenizer_config.json", {"bos_token": "", "eos_token": "", "unk_token": "",
                                                 "tokenizer_class": "LlamaTokenizer"})

    exact = {n: t.double().sum().item() for n, t in tuned.items()}
    write_json(".", "sums.json", {
        "weights": sum(v for n, v in exact.items() if "inv_freq" not in n),
        "with_inv_freq": sum(exact.values()),
        "accumulated_in_f32": sum(tuned[n].sum() for n in order).item()})


def write_corpus(state):
    for target in ("torchbin", "pickle"):
        os.makedirs(f"tests/fuzz/corpus/{target}", exist_ok=True)
    for name in ("layouts", "zip64", "deflated", "call"):
        shutil.copy(path_of(name + ".bin"), f"tests/fuzz/corpus/torchbin/{name}")
    shutil.copy(path_of("single", "pytorch_model.bin"), "tests/fuzz/corpus/torchbin/types")
    for name in ("layouts", "protocol4", "parameter", "call", "nested", "single/pytorch_model"):
        with zipfile.ZipFile(path_of(name + ".bin")) as z:
            (entry,) = [n for n in z.namelist() if n.endswith("/data.pkl")]
            with open(f"tests/fuzz/corpus/pickle/{name.split('/')[0]}", "wb") as f:
                f.write(z.read(entry))
    many = {f"layer.{i}": torch.zeros(1) for i in range(40)}  # a memo of more than 256 values
    torch.save(many, path_of("many.bin"))
    with zipfile.ZipFile(path_of("many.bin")) as z, open("tests/fuzz/corpus/pickle/many", "wb") as f:
        f.write(z.read("many/data.pkl"))
    os.remove(path_of("many.bin"))


def main():
    torch.set_num_threads(1)
    first, second = weights()
    save({**first, **second}, path_of("single", "pytorch_model.bin"))
    save_index([first, second], "sharded", {"total_size": 0})
    state = layouts()
    save(state, path_of("layouts.bin"))
    zip64(path_of("layouts.bin"), path_of("zip64.bin"))
    back = torch.load(path_of("zip64.bin"))
    assert all(torch.equal(back[n], state[n]) for n in state)
    write_refused(state)
    write_t5()
    write_diff()
    write_corpus(state)


if __name__ == "__main__":
    main()
