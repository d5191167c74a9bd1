#!/usr/bin/env python3
"""Make tests/data/gguf: files written by the gguf package, for tests/test_blocks.c and tests/test_gguf.c.

    blocks.gguf   for each block type T two tensors: "T" [2,512], random bytes with finite scales, and "T.f32", what the
                  package reads from them; "x" [4,256] f32, and "x.q8_0", "x.q4_0", what its encoders make of it
    kinds.gguf    a value of every kind, arrays of integers, floats, bools and strings; three small tensors
    v2.gguf       the same, version 2
    big.gguf      the same, of a big-endian machine

and tests/fuzz/corpus/gguf, small files for the fuzz target: these three, one tensor of each type, two models of one
layer with a vocabulary each.

Random numbers: numpy, seed 3.  Run from the repository's root with CPython 3.11, gguf 0.19.0, numpy 2.
"""
import os
import shutil
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

TYPES = {"q8_0": (T.Q8_0, 34, 32, [0]), "q4_0": (T.Q4_0, 18, 32, [0]), "q4_K": (T.Q4_K, 144, 256, [0, 2]),
         "q5_K": (T.Q5_K, 176, 256, [0, 2]), "q6_K": (T.Q6_K, 210, 256, [208])}
ROWS, WIDTH = 2, 512


def random_blocks(rng, size, block, scales):
    """Bytes of any value, but scales that are finite: some of them subnormal, negative or zero."""
    b = rng.integers(0, 256, (ROWS * WIDTH // block, size), dtype=np.uint8)
    for at in scales:
        d = rng.integers(0, 0x7c00, len(b), dtype=np.uint16) | rng.integers(0, 2, len(b), dtype=np.uint16) << 15
        d[0], d[1] = 0x0123, 0
        b[:, at:at + 2] = d.astype("<u2").view(np.uint8).reshape(-1, 2)
    return b.reshape(ROWS, -1)


def hard_values(rng):
    x = rng.standard_normal((4, 256)).astype(np.float32)
    x[0, :32] = 0
    x[0, 32:64] *= 1e-30            # scales below f16
    x[1, :32] = np.arange(-16, 16)  # halves to round
    x[1, 32:64] = -1.5
    x[2] *= 1e4
    x[3, :64] *= 1e-6               # subnormal scales
    return x


def write_blocks(path):
    rng = np.random.default_rng(3)
    w = gguf.GGUFWriter(path, "llama")
    for name, (kind, size, block, scales) in TYPES.items():
        b = random_blocks(rng, size, block, scales)
        w.add_tensor(name, b, raw_dtype=kind)
        w.add_tensor(name + ".f32", gguf.quants.dequantize(b, kind))
    x = hard_values(rng)
    w.add_tensor("x", x)
    for name in ("q8_0", "q4_0"):
        w.add_tensor("x." + name, gguf.quants.quantize(x, TYPES[name][0]), raw_dtype=TYPES[name][0])
    finish(w)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_kinds(path, big=False):
    w = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG if big else gguf.GGUFEndian.LITTLE)
    w.add_uint8("k.u8", 200)
    w.add_int8("k.i8", -100)
    w.add_uint16("k.u16", 60000)
    w.add_int16("k.i16", -30000)
    w.add_uint32("k.u32", 4000000000)
    w.add_int32("k.i32", -2000000000)
    w.add_uint64("k.u64", 2**63)
    w.add_int64("k.i64", -2**62)
    w.add_float32("k.f32", 0.1)
    w.add_float64("k.f64", 0.1)
    w.add_bool("k.yes", True)
    w.add_bool("k.no", False)
    w.add_string("k.string", "gr\u00fc\u00dfe")
    w.add_array("a.ints", [3, -1, 4, -1, 5])
    w.add_array("a.floats", [0.5, -2.25])
    w.add_array("a.bools", [True, False, True])
    w.add_array("a.strings", ["one", "", "\u4e09"])
    w.add_tensor("m.weight", np.arange(6, dtype=np.float32).reshape(2, 3))
    w.add_tensor("b.vector", np.arange(5, dtype=np.float16))
    w.add_tensor("z.cube", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    finish(w)


def write_types(path):
    rng = np.random.default_rng(4)
    w = gguf.GGUFWriter(path, "llama")
    for name, (kind, size, block, scales) in TYPES.items():
        w.add_tensor(name, rng.integers(0, 256, (1, size), dtype=np.uint8), raw_dtype=kind)
    w.add_tensor("bf16", np.zeros((1, 4), np.uint8), raw_dtype=T.BF16)
    finish(w)


def write_model(path, vocabulary):
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(1)
    w.add_context_length(8)
    w.add_embedding_length(4)
    w.add_feed_forward_length(4)
    w.add_head_count(2)
    w.add_head_count_kv(1)
    w.add_rope_dimension_count(2)
    w.add_layer_norm_rms_eps(1e-5)
    if vocabulary == "llama":
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + ["a", "b", "\u2581", "ab", "\u2581a"]
        w.add_token_scores([0.0] * (len(tokens) - 5) + [-3.0, -4.0, -5.0, -1.0, -2.0])
        w.add_token_types([2, 3, 3] + [6] * 256 + [1] * 5)
        w.add_bos_token_id(1)
    else:
        alphabet = sorted([chr(b) for b in [*range(33, 127), *range(161, 173), *range(174, 256)]] +
                          [chr(256 + i) for i in range(68)])
        tokens = alphabet + ["ab", "\u0120a", "<|end|>"]
        w.add_token_types([1] * (len(tokens) - 1) + [3])
        w.add_token_merges(["a b", "\u0120 a"])
        w.add_tokenizer_pre("gpt-2")
        w.add_eos_token_id(len(tokens) - 1)
    w.add_tokenizer_model(vocabulary)
    w.add_token_list(tokens)
    w.add_tensor("token_embd.weight", np.zeros((len(tokens), 4), np.float16))
    w.add_tensor("rope_freqs.weight", np.ones(1, np.float32))
    finish(w)


def write_corpus(fixtures):
    corpus = "tests/fuzz/corpus/gguf"
    os.makedirs(corpus, exist_ok=True)
    for name in ("kinds", "v2", "big"):
        shutil.copy(os.path.join(fixtures, name + ".gguf"), os.path.join(corpus, name))
    write_types(os.path.join(corpus, "types"))
    write_model(os.path.join(corpus, "llama"), "llama")
    write_model(os.path.join(corpus, "gpt2"), "gpt2")


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else "tests/data/gguf"
    os.makedirs(root, exist_ok=True)
    write_blocks(os.path.join(root, "blocks.gguf"))
    write_kinds(os.path.join(root, "kinds.gguf"))
    write_kinds(os.path.join(root, "big.gguf"), big=True)
    with open(os.path.join(root, "kinds.gguf"), "rb") as f:
        data = bytearray(f.read())
    data[4] = 2  # nothing else changed between the versions
    with open(os.path.join(root, "v2.gguf"), "wb") as f:
        f.write(data)
    write_corpus(root)


if __name__ == "__main__":
    main()
