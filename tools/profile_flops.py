#!/usr/bin/env python3
"""What the PyTorch profiler counts of tiny random models: the numbers in tests/test_flops.c.

    python3 tools/profile_flops.py

Prints, per pass, the FLOPs of matrix products (mm, addmm, bmm) and of element-wise products and sums (mul, add).  The
latter depend on how an implementation is written, and change between versions of transformers; products do not.
Needs torch and transformers (tools/requirements.txt).
"""
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
PROMPT, GISTS, INPUT = 17, 2, 9


def count(name, run):
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], with_flops=True) as p:
        run()
    flops = {e.key: e.flops for e in p.key_averages() if e.flops}
    products = sum(v for k, v in flops.items() if k in PRODUCTS)
    print(f"{name:12} products {products:9d}  pointwise {sum(flops.values()) - products:9d}", flops)


def main():
    torch.manual_seed(0)
    ids = torch.randint(0, 101, (1, PROMPT + GISTS + INPUT))
    llama = LlamaForCausalLM(LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=101, attn_implementation="eager")).eval()
    count("llama none", lambda: llama(ids))
    with torch.no_grad():
        cache = llama(ids[:, :PROMPT + GISTS], use_cache=True).past_key_values
    count("llama full", lambda: llama(ids[:, PROMPT + GISTS:], past_key_values=cache))
    t5 = T5ForConditionalGeneration(T5Config(
        d_model=64, d_ff=96, d_kv=16, num_heads=4, num_layers=3, num_decoder_layers=2, vocab_size=101,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        attn_implementation="eager")).eval()
    start = torch.zeros((1, 1), dtype=torch.long)
    count("t5 none", lambda: t5(input_ids=ids, decoder_input_ids=start))


if __name__ == "__main__":
    main()
