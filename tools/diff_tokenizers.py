#!/usr/bin/env python3
"""Differential test of our tokenizers against SentencePiece, tokenizers and tiktoken.

    python tools/diff_tokenizers.py --driver build/tests/tok_driver --data ../shared/data [--limit N]

Texts: every instruction, input, output and assembled prompt of the Alpaca files, and random strings that are meant to
be nasty (white space of all kinds, combining marks, jamo, emoji sequences, contractions, special-token look-alikes,
U+2581, control characters).  Any difference is printed and makes the exit status 1.

Models: llama (SentencePiece BPE); t5 (SentencePiece unigram; also over texts of megabytes, and its ids back to text,
less the unknowns); llama-json, -first, -always, -split (llama's vocabulary as a tokenizer.json with merges, spaces
written in the ways such files do); gpt2, qwen2 (tokenizers); llama3 (tiktoken).  "special": added tokens with lstrip,
rstrip and single_word strewn into the texts.
Characters that Unicode assigned after 14.0 are left out, and marks that tokenizers' own NFC does not order as the
Unicode of this Python does (its tables are older: U+07FD and 97 more): libraries know different editions.

Ran with: Python 3.11, sentencepiece 0.2.3, tokenizers 0.23.3, tiktoken 0.14.0; seed 7.
"""
import argparse
import base64
import collections
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

import sentencepiece
import tiktoken
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")


def alpaca_texts(data):
    texts = []
    folder = os.path.join(data, "alpaca_plus")
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(".jsonl.zst"):
            raw = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout
        elif name.startswith("validation") and name.endswith(".jsonl"):
            raw = open(path, "rb").read()
        else:
            continue
        for line in raw.decode().splitlines():
            row = json.loads(line)
            texts += [row["instruction"], row["input"], row["output"]]
            texts.append(f"Instruction: {row['instruction']}\n\nInput: {row['input']}\nOutput: {row['output']}")
    return texts


def nasty_texts(n, seed, extra):
    rnd = random.Random(seed)
    nfc = normalizers.NFC()

    def same_edition(c):
        tries = [base.format(chr(c)) for base in ("a{}\u0300", "a\u0300{}", "a{}\u0334", "a\u0334{}", "{}")]
        return unicodedata.category(chr(c)) not in ("Cn", "Cs") and (c < 0x300 or all(
            nfc.normalize_str(s) == unicodedata.normalize("NFC", s) for s in tries))

    assigned = [c for c in range(1, 0x110000) if same_edition(c)]
    marks = [c for c in assigned if unicodedata.combining(chr(c))]
    decomposing = [c for c in assigned if unicodedata.decomposition(chr(c))]
    numbers = [c for c in assigned if unicodedata.category(chr(c))[0] == "N"]
    spaces = [9, 10, 11, 12, 13, 28, 31, 32, 32, 32, 32, 0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x2009, 0x200B, 0x200D,
              0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF, 0x2581]
    words = ["'s", "'S", "'re", "'LL", "'\u017f", "\u2019s", "don't", "I'M", "we'Ve", " the", "Hello", "\r\n", "\n\n",
             "<0x0A>", "<s>", "</s>", "<unk>", "\u2581\u2581", "  ", "    ", "\t\t", "123", "4567", "3.14", "!!!", "...",
             "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u1100\u1161\u11a8", "e\u0301",
             "\u212b", "\u2126", "\ufb01", "\ufdfa", "\u0130", "\u1e9e", "\u00df", "\0", "\x7f", "\ufffd", "\ue000",
             "\ufffe", "\U0010ffff", "#", "_", "-" * 40, " " * 60, "a" * 70] + extra
    kinds = [lambda: chr(rnd.choice(spaces)), lambda: chr(rnd.randrange(32, 127)), lambda: rnd.choice(words),
             lambda: chr(rnd.choice(assigned)), lambda: chr(rnd.choice(marks)), lambda: chr(rnd.choice(decomposing)),
             lambda: chr(rnd.choice(numbers)), lambda: chr(rnd.randrange(0x4E00, 0x9FA5)),
             lambda: chr(rnd.randrange(0xAC00, 0xD7A3)), lambda: chr(rnd.randrange(0x400, 0x4FF))]
    out = []
    for _ in range(n):
        chosen = rnd.sample(kinds, rnd.randrange(1, 5)) + ([lambda: rnd.choice(extra)] if extra else [])
        out.append("".join(rnd.choice(chosen)() for _ in range(rnd.randrange(1, 60))))
    return out


def run_lines(driver, path, texts, *flags):
    blob = b"".join(b"%d\n%s" % (len(b), b) for b in (t.encode() for t in texts))
    done = subprocess.run([driver, path, *flags], input=blob, capture_output=True, check=True)
    return done.stdout.decode().split("\n")


def run_driver(driver, path, texts, special):
    lines = run_lines(driver, path, texts, *(["special"] if special else []))
    return [line if line.startswith("error") else [int(x) for x in line.split()] for line in lines[:len(texts)]]


def byte_level(path_vocab, path_merges, normalizer, pattern):
    merges = [tuple(line.rstrip("\r\n").split(" ")) for line in open(path_merges, encoding="utf-8", newline="\n")]
    merges = [m for m in merges if len(m) == 2 and not m[0].startswith("#version")]
    tok = Tokenizer(models.BPE(vocab=json.load(open(path_vocab)), merges=merges))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    return tok


def llama_json(sp, scheme=None, split=False):
    """The SentencePiece vocabulary as tokenizer.json: every split of a piece into two pieces is a merge.  Spaces by the
    normalizer of older files, or by Metaspace."""
    vocab = {sp.id_to_piece(i): i for i in range(sp.vocab_size())}
    merges = []
    for piece, i in vocab.items():
        if not (sp.is_control(i) or sp.is_byte(i) or sp.is_unknown(i)):
            for k in range(1, len(piece)):
                a, b = piece[:k], piece[k:]
                if a in vocab and b in vocab:
                    merges.append((-sp.get_score(i), vocab[a], vocab[b], (a, b)))
    merges.sort(key=lambda m: m[:3])
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[m[3] for m in merges], unk_token="<unk>", fuse_unk=True,
                               byte_fallback=True))
    if scheme:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme, split=split)
    else:
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return tok


def strew(tok):
    """Added tokens of every kind; their texts are returned."""
    tok.add_special_tokens([AddedToken("<GIST>", lstrip=True, rstrip=True), AddedToken("<|sp|>"),
                            AddedToken("<|sp|>x", rstrip=True), AddedToken("<l>", lstrip=True)])
    tok.add_tokens([AddedToken("word", single_word=True, normalized=False), AddedToken("<tool>", normalized=False),
                    AddedToken("\u00e9t\u00e9", normalized=True)] if tok.pre_tokenizer else
                   [AddedToken("<tool>", normalized=False)])
    return ["<GIST>", "<GIST><GIST>", " <GIST>\n", "<|sp|>", "<|sp|>x", "<l>", " <l>", "word", " word ", "words",
            "<tool>", "\u00e9t\u00e9", "e\u0301te\u0301", "<GIS", "<|sp"]


class Tally:
    def __init__(self):
        self.counts = collections.Counter()

    def compare(self, name, texts, ours, theirs):
        assert len(ours) == len(theirs) == len(texts)
        bad = [i for i in range(len(texts)) if ours[i] != theirs[i]]
        self.counts["differences"] += len(bad)
        ids = sum(len(x) for x in theirs)
        print(f"{name:24} {len(texts):8} texts {ids:10} ids {len(bad):6} differences", flush=True)
        for i in bad[:5]:
            print(f"    {texts[i]!r:.2000}\n    ours   {ours[i]!s:.2000}\n    theirs {theirs[i]!s:.2000}")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--driver", required=True)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--limit", type=int, default=0, help="most Alpaca texts per model (0: all)")
    p.add_argument("--nasty", type=int, default=20000)
    p.add_argument("--seed", type=int, default=7)
    a = p.parse_args()
    dirs = os.path.join(a.data, "tokenizers")
    tally = Tally()
    alpaca = alpaca_texts(a.data)
    if a.limit:
        alpaca = random.Random(a.seed).sample(alpaca, min(a.limit, len(alpaca)))
    nasty = nasty_texts(a.nasty, a.seed, [])
    print(f"sentencepiece {sentencepiece.__version__}, tokenizers {tokenizers.__version__}, "
          f"tiktoken {tiktoken.__version__}, seed {a.seed}")

    sp_path = os.path.join(dirs, "llama", "tokenizer.model")
    sp = sentencepiece.SentencePieceProcessor(model_file=sp_path)
    t5 = sentencepiece.SentencePieceProcessor(model_file=os.path.join(dirs, "t5", "spiece.model"))
    ranks = dict((base64.b64decode(b), int(r)) for b, r in
                 (line.split() for line in open(os.path.join(dirs, "llama3", "tokenizer.model"), "rb") if line.strip()))
    t3 = tiktoken.Encoding("llama3", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={})
    hf = {"gpt2": Tokenizer.from_file(os.path.join(dirs, "gpt2", "tokenizer.json"))}
    qwen = os.path.join(dirs, "qwen2")
    hf["qwen2"] = byte_level(os.path.join(qwen, "vocab.json"), os.path.join(qwen, "merges.lf.txt"),
                             normalizers.NFC(), QWEN2)
    hf["gpt2"].no_truncation()

    for kind, texts in (("alpaca", alpaca), ("nasty", nasty)):
        def ours(path):
            return run_driver(a.driver, os.path.join(dirs, path), texts, False)
        tally.compare(f"llama {kind}", texts, ours("llama/tokenizer.model"), sp.encode(texts))
        ids = t5.encode(texts)
        tally.compare(f"t5 {kind}", texts, ours("t5"), ids)
        decoded = run_lines(a.driver, os.path.join(dirs, "t5"), texts, "decode")[:len(texts)]
        decoded = [s.replace("\\n", "\n").replace("\\\\", "\\") for s in decoded]
        tally.compare(f"t5 {kind} decoded", texts, decoded,
                      t5.decode([[i for i in x if i != t5.unk_id()] for x in ids]))
        joined = ["\n".join(texts[i:i + 4000]) for i in range(0, min(len(texts), 60000), 4000)]
        tally.compare(f"t5 {kind} joined", joined, run_driver(a.driver, os.path.join(dirs, "t5"), joined, False),
                      t5.encode(joined))
        tally.compare(f"llama3 {kind}", texts, ours("llama3/tokenizer.model"),
                      t3.encode_ordinary_batch(texts, num_threads=2))
        for name, path in (("gpt2", "gpt2/tokenizer.json"), ("gpt2", "gpt2/vocab.json"), ("qwen2", "qwen2")):
            hf[name].encode_special_tokens = True
            theirs = [e.ids for e in hf[name].encode_batch(texts, add_special_tokens=False)]
            tally.compare(f"{path} {kind}", texts, ours(path), theirs)

    with tempfile.TemporaryDirectory() as tmp:
        hf["llama-json"] = llama_json(sp)
        hf["llama-first"] = llama_json(sp, "first")
        hf["llama-always"] = llama_json(sp, "always")
        hf["llama-split"] = llama_json(sp, "always", True)
        for name in ("llama-json", "llama-first", "llama-always", "llama-split", "gpt2", "qwen2"):
            tok, path = hf[name], os.path.join(tmp, name + ".json")
            tok.encode_special_tokens = False
            extra = strew(tok)
            tok.save(path)
            for kind, texts in (("alpaca", alpaca), ("special", nasty_texts(a.nasty, a.seed + 1, extra))):
                theirs = [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]
                tally.compare(f"{name}.json {kind}", texts, run_driver(a.driver, path, texts, True), theirs)
    bad = tally.counts["differences"]
    print(f"{bad} differences")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
