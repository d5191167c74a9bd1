#!/usr/bin/env python3
"""Make tests/data/format: files written by other hands than ours, for tests/test_format_*.c.

    single/model.safetensors    by the safetensors package: F32, BF16, F16, a scalar, an empty tensor, two buffers
    sharded/                    the same tensors in two shards with an index
    python.gist, q8_0.gist      .gist files written from docs/formats/gist.md alone, not by our library

Element i of a tensor is ((37 i + n) mod 101 - 50) / 16 with n its number below: exact in every type, no seed; of an I8
tensor ((37 i + n) mod 256) - 128.
Run from the repository's root with torch 2.15.0, safetensors 0.8.0, xxhash 4.1.0, Python 3.11.  With --check FILE.gist it
reads a file of our writer instead and compares it with python.gist.
"""
import glob
import json
import os
import struct
import sys

import safetensors
import torch
import xxhash
from safetensors.torch import load, save_file

ROOT = "tests/data/format"


def values(n, shape, dtype):
    count = int(torch.tensor(shape).prod()) if shape else 1
    if dtype == torch.int8:
        return ((torch.arange(count) * 37 + n) % 256 - 128).to(dtype).reshape(shape)
    return (((torch.arange(count) * 37 + n) % 101 - 50) / 16).to(dtype).reshape(shape)


def weights():
    first = {
        "a.weight": values(1, [2, 3], torch.float32),
        "b.weight": values(2, [5], torch.bfloat16),
        "c.weight": values(3, [2, 1, 2, 3], torch.float16),
    }
    second = {
        "d.scale": values(4, [], torch.float32),
        "e.empty": values(5, [0, 4], torch.bfloat16),
        "f.rotary_emb.inv_freq": values(6, [2], torch.float64),
        "g.position_ids": torch.arange(3).reshape(1, 3),
        "model.layers.0.self_attn.q_proj.weight": values(7, [3, 3], torch.bfloat16),
    }
    return first, second


def write_weights():
    first, second = weights()
    for folder in ("single", "sharded"):
        os.makedirs(f"{ROOT}/{folder}", exist_ok=True)
    save_file({**first, **second}, f"{ROOT}/single/model.safetensors", metadata={"format": "pt"})
    index = {}
    for number, part in enumerate((first, second), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file(part, f"{ROOT}/sharded/{shard}", metadata={"format": "pt"})
        index.update({name: shard for name in part})
    for path in glob.glob(f"{ROOT}/*/*.safetensors"):
        os.chmod(path, 0o644)  # the package makes them private
    total = sum(t.numel() * t.element_size() for t in {**first, **second}.values())
    with open(f"{ROOT}/sharded/model.safetensors.index.json", "w") as out:
        json.dump({"metadata": {"total_size": total}, "weight_map": index}, out, indent=1)
        out.write("\n")


def write_gist(path, dtype, layers, shape, parts):
    meta = {
        "adapter": "", "condition": "gist", "dtype": dtype, "family": "llama", "first_position": "17",
        "format": "gist", "head_dim": str(shape[2]), "id": "0123456789abcdef" * 2, "k": str(shape[0]),
        "kernels": "scalar", "kv_heads": str(shape[1]), "layers": str(layers), "model": "a" * 32,
        "prompt_tokens": "17", "rebased": "false", "template": 'quo"te\\d', "tokenizer": "b" * 32, "tuned": "true",
        "version": "1",
    }
    tensors = {f"layers.{i}.{name}": part for i in range(layers) for name, part in parts.items()}
    kinds = enumerate(tensors.values())
    rows = [values(n, dims, kind).view(torch.uint8).numpy().tobytes() for n, (_, kind, dims) in kinds]
    fields = [text.encode() for key in sorted(meta) for text in (key, meta[key])] + rows
    meta["checksum"] = xxhash.xxh3_128(b"".join(struct.pack("<Q", len(f)) + f for f in fields)).hexdigest()
    header = {"__metadata__": {key: meta[key] for key in sorted(meta)}}
    end = 0
    for number, (name, (kind, _, dims)) in enumerate(tensors.items()):
        begin, end = end, end + len(rows[number])
        header[name] = {"dtype": kind, "shape": dims, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    blob = struct.pack("<Q", len(text)) + text + b"".join(rows)
    safetensors.deserialize(blob)
    with open(path, "wb") as out:
        out.write(blob)


def write_gists():
    rows = ("BF16", torch.bfloat16, [3, 2, 4])
    write_gist(f"{ROOT}/python.gist", "bf16", 2, [3, 2, 4], {"key": rows, "value": rows})
    q, scale = ("I8", torch.int8, [2, 1, 64]), ("F16", torch.float16, [2, 1, 2])
    parts = {"key": q, "key_scale": scale, "value": q, "value_scale": scale}
    write_gist(f"{ROOT}/q8_0.gist", "q8_0", 1, [2, 1, 64], parts)


def check(path):
    ours = load(open(path, "rb").read())
    theirs = load(open(f"{ROOT}/python.gist", "rb").read())
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    print(f"{path}: {len(ours)} tensors as expected")


if sys.argv[1:2] == ["--check"]:
    check(sys.argv[2])
else:
    write_weights()
    write_gists()
