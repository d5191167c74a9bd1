#!/usr/bin/env python3
"""Differential test of our tokenizers against SentencePiece, tokenizers and tiktoken.

    make && gcc -D_GNU_SOURCE -Iinclude -Isrc -o tok_driver tests/tok_driver.c build/release/rooms.a LIBRARIES
    python tools/diff_tokenizers.py --driver ./tok_driver --data ../shared/data [--limit N]

Texts: every instruction, input, output and assembled prompt of the Alpaca files, and random strings that are meant to
be nasty (white space of all kinds, combining marks, jamo, emoji sequences, contractions, special-token look-alikes,
U+2581, control characters).  Any difference is printed and makes the exit status 1.

Models: llama (SentencePiece BPE); t5 (SentencePiece unigram; also over texts of megabytes, and its ids back to text,
less the unknowns); llama-json, -first, -always, -never, -split (llama's vocabulary as a tokenizer.json with merges,
spaces written in the ways such files do); gpt2, qwen2 (tokenizers); llama3 (tiktoken).  "special": added tokens with
lstrip, rstrip, single_word and normalized strewn into the texts.
Other forms of the same vocabularies: GGUF files, those of the shared data and others written here with the gguf
package, must give the ids and the fingerprint of the Hugging Face files; the files that the driver writes must give
ourselves and transformers the ids of the tokenizer that they are of.
Characters that Unicode assigned after 14.0 are left out, and marks that tokenizers' own NFC does not order as the
Unicode of this Python does (its tables are older: U+07FD and 97 more): libraries know different editions.

Ran with: Python 3.11, sentencepiece 0.2.3, tokenizers 0.23.3, tiktoken 0.14.0, gguf 0.19, transformers 5.23; seed 7.
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

import gguf
import sentencepiece
import tiktoken
import tokenizers
import transformers
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
    tok = Tokenizer(models.BPE(vocab=json.load(open(path_vocab)), merges=read_merges(path_merges)))
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
                    merges.append((-sp.get_score(i), i, vocab[a], vocab[b], (a, b)))
    merges.sort(key=lambda m: m[:4])  # a piece's merges stay together
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[m[4] for m in merges], unk_token="<unk>", fuse_unk=True,
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
                   [AddedToken("<tool>", normalized=True), AddedToken("<a b>", normalized=True)])
    return ["<GIST>", "<GIST><GIST>", " <GIST>\n", "<|sp|>", "<|sp|>x", "<l>", " <l>", "word", " word ", "words",
            "<tool>", " <tool>", "x<a b>", " <a b> ", "\u00e9t\u00e9", "e\u0301te\u0301", "<GIS", "<|sp"]


def letters():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def tiktoken_as_bpe(ranks):
    """Vocabulary and merges of byte-level BPE: every split of a piece into two pieces is one, as in transformers."""
    of = letters()
    vocab = {"".join(of[b] for b in piece): rank for piece, rank in ranks.items()}
    merges = []
    for piece, rank in ranks.items():
        splits = [(ranks[piece[:k]], ranks[piece[k:]], piece[:k], piece[k:]) for k in range(1, len(piece))
                  if piece[:k] in ranks and piece[k:] in ranks]
        merges += [(rank, a, b) for _, _, a, b in sorted(splits)]
    merges.sort(key=lambda m: m[0])
    return vocab, [tuple("".join(of[b] for b in x) for x in m[1:]) for m in merges]


def write_gguf(path, pre, vocab, merges, special, bos=None, eos=None):
    """A vocabulary-only file as the usual converters write it."""
    w = gguf.GGUFWriter(path, "llama")
    tokens = sorted({**vocab, **special}.items(), key=lambda x: x[1])
    assert [i for _, i in tokens] == list(range(len(tokens)))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list([s for s, _ in tokens])
    w.add_token_types([3 if s in special else 1 for s, _ in tokens])
    w.add_token_merges([" ".join(m) for m in merges])
    if bos is not None:
        w.add_bos_token_id(bos)
    if eos is not None:
        w.add_eos_token_id(eos)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def read_merges(path):
    merges = [tuple(line.rstrip("\r\n").split(" ")) for line in open(path, encoding="utf-8", newline="\n")]
    return [m for m in merges if len(m) == 2 and not m[0].startswith("#version")]


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


def other_forms(a, dirs, tally, ranks, alpaca, nasty):
    """The same tokenizers as GGUF files and as the files we write."""
    def run(*args):
        done = subprocess.run([a.driver, *args], capture_output=True)
        return done.stdout.decode().strip() or done.stderr.decode().strip()

    def here(name):
        return os.path.join(tmp, name)

    def there(name):
        return os.path.join(dirs, name)

    texts = alpaca + nasty
    with tempfile.TemporaryDirectory() as tmp:
        vocab = json.load(open(there("qwen2/vocab.json"), encoding="utf-8"))
        chat = {s: len(vocab) + i for i, s in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])}
        write_gguf(here("qwen2.gguf"), "qwen2", vocab, read_merges(there("qwen2/merges.lf.txt")), chat,
                   bos=chat["<|endoftext|>"], eos=chat["<|im_end|>"])
        vocab, merges = tiktoken_as_bpe(ranks)
        names = {9: "<|eot_id|>", 0: "<|begin_of_text|>", 1: "<|end_of_text|>", 6: "<|start_header_id|>",
                 7: "<|end_header_id|>"}
        special = {names.get(i, f"<|reserved_special_token_{i - sum(k < i for k in names)}|>"): len(vocab) + i
                   for i in range(256)}
        write_gguf(here("llama3.gguf"), "llama-bpe", vocab, merges, special, bos=len(vocab), eos=len(vocab) + 9)
        vocab = json.load(open(there("gpt2/vocab.json"), encoding="utf-8"))
        merges = read_merges(there("gpt2/merges.txt"))
        smol = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        smol.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
        smol.add_special_tokens([AddedToken("<|endoftext|>")])
        smol.decoder = decoders.ByteLevel()
        smol.save(here("smollm.json"))
        end = vocab.pop("<|endoftext|>")
        write_gguf(here("smollm.gguf"), "smollm", vocab, merges, {"<|endoftext|>": end}, bos=end, eos=end)
        sp = sentencepiece.SentencePieceProcessor(model_file=there("llama/tokenizer.model"))
        for name, scheme in (("llama-json", None), ("llama-first", "first"), ("llama-always", "always")):
            tok = llama_json(sp, scheme)
            tok.add_special_tokens(["<unk>", "<s>", "</s>"])
            tok.save(here(name + ".json"))

        vectors = "vectors/ggml-vocab-{}.gguf"
        for name, gguf_path, files, same in (
                ("llama-spm", there(vectors.format("llama-spm")), there("llama/tokenizer.model"), True),
                ("gpt-2", there(vectors.format("gpt-2")), there("gpt2"), True),
                ("qwen2", here("qwen2.gguf"), there("qwen2"), True),
                ("llama-bpe", here("llama3.gguf"), there("llama3/tokenizer.model"), False),
                ("smollm", here("smollm.gguf"), here("smollm.json"), True),
                ("t5", None, there("t5"), True),
                ("llama-json", None, here("llama-json.json"), True),
                ("llama-first", None, here("llama-first.json"), True),
                ("llama-always", None, here("llama-always.json"), True)):
            ours = run_driver(a.driver, files, texts, False)
            if gguf_path:
                tally.compare(f"{name} as GGUF", texts, run_driver(a.driver, gguf_path, texts, False), ours)
                prints = run(gguf_path, "fingerprint"), run(files, "fingerprint")
                tally.counts["differences"] += (prints[0] == prints[1]) != same
                verdict = "right" if (prints[0] == prints[1]) == same else "WRONG"
                print(f"    fingerprints {prints[0]}, {prints[1]}: {verdict}")
                inp = there(vectors.format(name) + ".inp")
                if os.path.exists(inp):
                    print("    vectors:", run(gguf_path, "vectors", inp, inp[:-4] + ".out"))
            written = here(name)
            os.mkdir(written)
            print("   ", run(gguf_path or files, "write", written) or "through arrays,", sorted(os.listdir(written)))
            tally.compare(f"{name} written", texts, run_driver(a.driver, written, texts, False), ours)
            with open(os.path.join(written, "config.json"), "w") as f:
                json.dump({"model_type": {"t5": "t5", "qwen2": "qwen2"}.get(name, "llama")}, f)
            tok = transformers.AutoTokenizer.from_pretrained(written)
            tok.backend_tokenizer.encode_special_tokens = True
            theirs = [e.ids for e in tok.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]
            if name == "t5":  # its pieces for "</s>" and the like are found in any text there
                theirs, ours = theirs[:len(alpaca)], ours[:len(alpaca)]
            tally.compare(f"{name} in transformers", texts[:len(ours)], ours, theirs)


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
        hf["llama-never"] = llama_json(sp, "never")
        hf["llama-split"] = llama_json(sp, "always", True)
        for name in ("llama-json", "llama-first", "llama-always", "llama-never", "llama-split", "gpt2", "qwen2"):
            tok, path = hf[name], os.path.join(tmp, name + ".json")
            tok.encode_special_tokens = False
            extra = strew(tok)
            tok.save(path)
            for kind, texts in (("alpaca", alpaca), ("special", nasty_texts(a.nasty, a.seed + 1, extra))):
                theirs = [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]
                tally.compare(f"{name}.json {kind}", texts, run_driver(a.driver, path, texts, True), theirs)
    other_forms(a, dirs, tally, ranks, alpaca, nasty)
    bad = tally.counts["differences"]
    print(f"{bad} differences")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
