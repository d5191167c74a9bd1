#!/usr/bin/env python3
"""A T5 of any size with random weights in blocks of 8 or 4 bits, as a GGUF file: to time loading and running one.

    python tools/make_random_t5.py --tokenizer spiece.model -o xxl.gguf              (FLAN-T5-XXL's shape, q8_0: 11.8 GB)
    python tools/make_random_t5.py --tokenizer spiece.model --type q4_0 --layers 2 --width 256 --ff 512 --heads 4 -o t.gguf

One tensor is in memory at a time.  One seed, one file.  Needs gguf, numpy, protobuf and sentencepiece.
"""
import argparse

import gguf
import numpy as np
import sentencepiece as spm

import t5_gguf

# name: type, bytes of a block's 32 values, their spread before the scale
TYPES = {"q8_0": (gguf.GGMLQuantizationType.Q8_0, 32, 73.6), "q4_0": (gguf.GGMLQuantizationType.Q4_0, 16, 4.6)}
BUCKETS = 32  # of distances


def blocks(rng, rows, cols, kind, gain):
    """Bytes of random blocks whose values have about the size gain / sqrt(cols): a scale in float16, 32 values."""
    _, size, spread = TYPES[kind]
    out = np.empty((rows, cols // 32, 2 + size), np.uint8)
    scale = np.array(gain / cols ** 0.5 / spread, np.float16)
    out[..., :2] = np.frombuffer(scale.tobytes(), np.uint8)
    out[..., 2:] = np.frombuffer(rng.bytes(rows * (cols // 32) * size), np.uint8).reshape(rows, cols // 32, size)
    if kind == "q8_0":
        out[..., 2:][out[..., 2:] == 128] = 127  # -128 is no level of this type
    return out.reshape(rows, -1)


def tensors(a, vocab):
    """(name, rows, cols, gain) of every matrix, (name, size, 0, 0) of every vector, in the file's order."""
    wide = a.heads * a.head_dim
    yield "token_embd.weight", vocab, a.width, a.width ** 0.5
    for stack, parts in (("enc", ("attn",)), ("dec", ("attn", "cross_attn"))):
        for i in range(a.layers):
            at = f"{stack}.blk.{i}."
            for part in parts:
                yield f"{at}{part}_norm.weight", a.width, 0, 0
                yield f"{at}{part}_q.weight", wide, a.width, 1 / a.head_dim ** 0.5
                yield f"{at}{part}_k.weight", wide, a.width, 1
                yield f"{at}{part}_v.weight", wide, a.width, 1
                yield f"{at}{part}_o.weight", a.width, wide, 1
            yield f"{at}ffn_norm.weight", a.width, 0, 0
            yield f"{at}ffn_gate.weight", a.ff, a.width, 1
            yield f"{at}ffn_up.weight", a.ff, a.width, 1
            yield f"{at}ffn_down.weight", a.width, a.ff, 1
        yield f"{stack}.blk.0.attn_rel_b.weight", BUCKETS, -a.heads, 0
        yield f"{stack}.output_norm.weight", a.width, 0, 0
    yield "output.weight", vocab, a.width, 1


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokenizer", required=True, help="spiece.model")
    p.add_argument("--type", choices=sorted(TYPES), default="q8_0")
    p.add_argument("--layers", type=int, default=24, help="of each stack")
    p.add_argument("--width", type=int, default=4096)
    p.add_argument("--ff", type=int, default=10240)
    p.add_argument("--heads", type=int, default=64)
    p.add_argument("--head-dim", type=int, default=64)
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("-o", "--out", required=True)
    a = p.parse_args()
    sp = spm.SentencePieceProcessor(model_file=a.tokenizer)
    vocab = t5_gguf.vocabulary(sp)
    out = gguf.GGUFWriter(a.out, "t5")
    t5_gguf.describe(out, sp, vocab, context=a.context, width=a.width, ff=a.ff, layers=a.layers,
                     decoder_layers=a.layers, heads=a.heads, head_dim=a.head_dim, buckets=BUCKETS)
    rng = np.random.default_rng(a.seed)
    size = TYPES[a.type][1] + 2
    for name, rows, cols, _ in tensors(a, len(vocab)):
        if cols > 0:
            out.add_tensor_info(name, (rows, cols // 32 * size), np.dtype(np.uint8), rows * cols // 32 * size,
                                raw_dtype=TYPES[a.type][0])
        else:
            shape = (rows, -cols) if cols else (rows,)
            out.add_tensor_info(name, shape, np.dtype(np.float32), 4 * rows * max(1, -cols))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    for name, rows, cols, gain in tensors(a, len(vocab)):
        if cols > 0:
            out.write_tensor_data(blocks(rng, rows, cols, a.type, gain))
        elif cols < 0:
            out.write_tensor_data(rng.standard_normal((rows, -cols)).astype(np.float32))
        else:
            out.write_tensor_data(np.ones(rows, np.float32))
    out.close()
    print(f"{a.out}: {len(vocab)} tokens, {a.layers} + {a.layers} layers, {a.type}")


if __name__ == "__main__":
    main()
