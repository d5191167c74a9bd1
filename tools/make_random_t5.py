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

TYPES = {"q8_0": (gguf.GGMLQuantizationType.Q8_0, 32, 8, 73.6), "q4_0": (gguf.GGMLQuantizationType.Q4_0, 16, 4, 4.6)}
EXTRA = 100  # sentinels


def blocks(rng, rows, cols, kind, gain):
    """Bytes of random blocks whose values have about the size gain / sqrt(cols): a scale in float16, 32 levels."""
    _, size, _, spread = TYPES[kind]
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
        yield f"{stack}.blk.0.attn_rel_b.weight", 32, -a.heads, 0
        yield f"{stack}.output_norm.weight", a.width, 0, 0
    yield "output.weight", vocab, a.width, 1


def describe(out, a, tokens, sp):
    out.add_context_length(a.context)
    out.add_embedding_length(a.width)
    out.add_feed_forward_length(a.ff)
    out.add_block_count(a.layers)
    out.add_uint32("t5.decoder_block_count", a.layers)
    out.add_head_count(a.heads)
    out.add_key_length(a.head_dim)
    out.add_value_length(a.head_dim)
    out.add_layer_norm_eps(1e-6)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_relative_attn_buckets_count(32)
    out.add_decoder_start_token_id(0)
    kinds = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 1 for i in range(sp.get_piece_size())]
    scores = [sp.get_score(i) for i in range(sp.get_piece_size())]
    more = len(tokens) - len(kinds)
    out.add_tokenizer_model("t5")
    out.add_tokenizer_pre("default")
    out.add_token_list(tokens)
    out.add_token_scores(scores + [-1000.0] * more)
    out.add_token_types(kinds + [3] * more)
    out.add_add_space_prefix(True)
    out.add_remove_extra_whitespaces(True)
    charsmap = sp_charsmap(sp)
    if charsmap:
        out.add_precompiled_charsmap(charsmap)
    out.add_eos_token_id(1)
    out.add_pad_token_id(0)
    out.add_unk_token_id(2)
    out.add_add_bos_token(False)
    out.add_add_eos_token(True)


def sp_charsmap(sp):
    from sentencepiece import sentencepiece_model_pb2 as pb
    model = pb.ModelProto()
    model.ParseFromString(sp.serialized_model_proto())
    return model.normalizer_spec.precompiled_charsmap


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
    tokens = [sp.id_to_piece(i).encode() for i in range(sp.get_piece_size())]
    tokens += [f"<extra_id_{i}>".encode() for i in reversed(range(EXTRA))] + [b"<GIST>"]
    out = gguf.GGUFWriter(a.out, "t5")
    describe(out, a, tokens, sp)
    rng = np.random.default_rng(a.seed)
    size = TYPES[a.type][1] + 2
    for name, rows, cols, _ in tensors(a, len(tokens)):
        if cols > 0:
            out.add_tensor_info(name, (rows, cols // 32 * size), np.dtype(np.uint8), rows * cols // 32 * size,
                                raw_dtype=TYPES[a.type][0])
        else:
            shape = (rows, -cols) if cols else (rows,)
            out.add_tensor_info(name, shape, np.dtype(np.float32), 4 * rows * max(1, -cols))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    for name, rows, cols, gain in tensors(a, len(tokens)):
        if cols > 0:
            out.write_tensor_data(blocks(rng, rows, cols, a.type, gain))
        elif cols < 0:
            out.write_tensor_data(rng.standard_normal((rows, -cols)).astype(np.float32))
        else:
            out.write_tensor_data(np.ones(rows, np.float32))
    out.close()
    print(f"{a.out}: {len(tokens)} tokens, {a.layers} + {a.layers} layers, {a.type}")


if __name__ == "__main__":
    main()
