"""What a T5 GGUF file says before its tensors: the shape, and the vocabulary of a spiece.model."""
from sentencepiece import sentencepiece_model_pb2


def vocabulary(sp, sentinels=100, gist=True):
    """(token, score, kind) of every piece, the sentinels and <GIST>."""
    rows = [(sp.id_to_piece(i).encode(), sp.get_score(i), 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 1)
            for i in range(sp.get_piece_size())]
    more = [f"<extra_id_{i}>" for i in reversed(range(sentinels))] + ["<GIST>"] * gist
    return rows + [(name.encode(), -1000.0, 3) for name in more]


def describe(out, sp, vocab, *, context, width, ff, layers, decoder_layers, heads, head_dim, buckets):
    """Write both into a GGUFWriter; vocab is vocabulary()'s."""
    out.add_context_length(context)
    out.add_embedding_length(width)
    out.add_feed_forward_length(ff)
    out.add_block_count(layers)
    out.add_uint32("t5.decoder_block_count", decoder_layers)
    out.add_head_count(heads)
    out.add_key_length(head_dim)
    out.add_value_length(head_dim)
    out.add_layer_norm_eps(1e-6)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_relative_attn_buckets_count(buckets)
    out.add_decoder_start_token_id(0)
    tokens, scores, kinds = (list(column) for column in zip(*vocab))
    out.add_tokenizer_model("t5")
    out.add_tokenizer_pre("default")
    out.add_token_list(tokens)
    out.add_token_scores(scores)
    out.add_token_types(kinds)
    out.add_add_space_prefix(True)
    out.add_remove_extra_whitespaces(True)
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(sp.serialized_model_proto())
    if model.normalizer_spec.precompiled_charsmap:
        out.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    out.add_eos_token_id(1)
    out.add_pad_token_id(0)
    out.add_unk_token_id(2)
    out.add_add_bos_token(False)
    out.add_add_eos_token(True)
