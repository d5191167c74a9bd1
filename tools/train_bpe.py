#!/usr/bin/env python3
"""A byte-level BPE vocabulary for a model trained from scratch (docs/results/alpaca.md).

    python tools/train_bpe.py --data train.jsonl --size 8192 -o DIR

Reads rows {instruction, input, output}; writes tokenizer.json and tokenizer_config.json, as `gist train --tokenizer DIR`
takes them.  <s> is 0 and </s> is 1.  The same rows give the same files.  Needs the `tokenizers` package.
"""
import argparse
import json
import os

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def texts(path):
    for line in open(path, encoding="utf-8"):
        row = json.loads(line)
        for key in ("instruction", "input", "output"):
            if row.get(key):
                yield row[key]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--size", type=int, default=8192)
    p.add_argument("-o", "--out", required=True)
    args = p.parse_args()
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts(args.data), trainers.BpeTrainer(
        vocab_size=args.size, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    os.makedirs(args.out, exist_ok=True)
    t.save(os.path.join(args.out, "tokenizer.json"))
    with open(os.path.join(args.out, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
                   "clean_up_tokenization_spaces": False}, f, indent=1)
    print(f"{t.get_vocab_size()} entries")


if __name__ == "__main__":
    main()
