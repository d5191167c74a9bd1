#!/usr/bin/env python3
"""Make tests/data/token: small tokenizers of every kind, trained on the text below, and the ids that the reference
libraries give.  cases.txt: model, TAB, text (\\n \\r \\t \\\\ escaped), TAB, ids; "#" begins a comment.
t5.txt: the same without the model, which is the shared data's tokenizers/t5/spiece.model.

    GIST_TEST_DATA=../shared/data python tools/make_token_fixtures.py

Ran with: Python 3.11, sentencepiece 0.2.3, tokenizers 0.23.3, tiktoken 0.14.0.  Training is deterministic (one thread).
"""
import base64
import contextlib
import io
import json
import os
import tempfile

import sentencepiece
import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "token")
TEXT = """The shop opens at nine in the morning and closes at six in the evening.
On Sundays the shop is closed, but the bakery next door opens at ten.
Please answer politely, in one short sentence, and never promise a discount.
If the customer asks about an order, ask for the order number first.
Instruction: translate the sentence. Input: the bakery is open. Output: die Bäckerei ist offen.
Instruction: count the words. Input: one two three four five. Output: five.
Die Straße ist schön; am Sonntag ist das Café geschlossen. Où est la gare ? Là-bas, à gauche.
It's what they're saying: we've opened, I'll answer, you'd ask, don't promise.
Numbers: 1 22 333 4444 55555 and 3.14; e-mail the order number, 2024-05-06.
The answer is the answer; the order is the order; the number is the number.
"""
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
CASES = ["", " ", "  ", "\n", "Hello world", " the shop", "The shop opens at nine.", "the  order   number", "a\n\n b\t c ",
         "it's WE'VE they'RE", "12345 3.14", "Bäckerei e\u0301te\u0301 Straße", "日本語 שלום", "🚀👩‍👧 ok", "x\u3000y\u00a0z",
         "\u2581the\u2581", "<0x0A> <s> <unk>", "the <GIS the<tool>the", "ſtop 'ſ", "\r\n\r\nend\r\n", "a\u0316\u0300\u0334b",
         "aaaaaaaaaaaaaaaa", "\u1e9b\u0323 \u212b \ufb01", "...!!!???"]
SPECIAL = ["<GIST>", "the shop \n<GIST> <GIST>\n\n the", "a<s>b</s> c", "<tool> the<tool>", "x <l>y", "x<GIST><|eot_id|> y",
           "word words word", "e\u0301te\u0301 <tool>x"]
# Rules of a character map, source and replacement, of the kinds that NFKC has and some that it has not
RULES = [("\u212b", "\u00c5"), ("e\u0301", "\u00e9"), ("\u00e9\u0323", "\u1eb9\u0301"), ("\ufb01", "fi"),
         ("\u3000", " "), ("\u00a0", " "), ("\n", " "), ("\t", " "), ("\r", " "), ("\u00ad", ""),
         ("\u00a8", " \u0308"), ("\u2026", "..."), ("\u00bd", "1 / 2"), ("\u1e9b\u0323", "\u1e69"), ("or", "OR"),
         ("order", "ordre"), ("\u200b", " "), ("\U0001f680", "rocket ")]
MAPPED = ["\u00adthe\u00ad shop\u00ad", "\u200b\u3000\t", "\u00ad", "a\u00a8b \u00a8\u00a8c",
          "e\u0301\u0323 e\u0301e \u00e9\u0323", "1\u00bd \u00bd", "or ord orde order orders",
          "\U0001f680\U0001f680 \U0001f680x", "\ufb01ve\u2026\u2026 \u212b", "the \u3000 shop\u200b",
          "<tool>  <tool>order the<tool> ", "nnnnnnnnnnnnnnnnn", "\u65e5\u672c the \u8a9e"]
NFKC = ["\ufdfa \u3300\u2460\u00b2", "\uac01 \u1100\u1161\u11a8 \u1100", "\u0958 \u0915\u093c",
        "\uff21\uff42\uff43\u3000\uff11", "\x00a\x01b\x7f", "\u0344 \u0308\u0301", "\u2028\u2029 \u0085",
        "\u200d\u200e\ufeff", "----------------- _________ ....", "\u1e0b\u0323 d\u0323\u0307",
        "\U0001d400\U0001d7ce \U0001f100", "<extra_id_0> <pad>", "\u01c4\u01f0 j\u030c",
        "\u2581 \u2581\u2581a \u2581"]
LONG = ("the " * 20 + " _________  ") * 2000  # sums pass 100,000 several times


def train_sp(model_type="bpe", rules=False, **more):
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as tmp, contextlib.chdir(tmp):  # the model remembers the file's name
        with open("rules.tsv", "w") as f:
            for a, b in RULES:
                f.write(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n")
        norm = {"normalization_rule_tsv": "rules.tsv"} if rules else {"normalization_rule_name": "identity"}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT.splitlines()), model_writer=out, model_type=model_type, num_threads=1,
            minloglevel=2, hard_vocab_limit=False, **norm, **more)
    return out.getvalue()



def mark_unused(model, texts):
    """The model with the named pieces made UNUSED (type 5): they merge, but are taken apart again at the end."""
    out, pos = b"", 0
    while model[pos] == 0x0A:  # field 1, a piece of less than 128 bytes
        record = model[pos + 2:pos + 2 + model[pos + 1]]
        pos += 2 + model[pos + 1]
        if record[2:2 + record[1]].decode() in texts:
            assert b"\x18" not in record[-2:]
            record += b"\x18\x05"
        out += bytes([0x0A, len(record)]) + record
    return out + model[pos:]


def tiktoken_letters():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def train_bytes():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.train_from_iterator(TEXT.splitlines(), trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return json.loads(tok.to_str())["model"]


def write(name, data):
    path = os.path.join(OUT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def dump(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def escape(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def main():
    lines = ["# made by tools/make_token_fixtures.py"]

    def case(model, texts, ids_of):
        lines.extend(f"{model}\t{escape(t)}\t{' '.join(map(str, ids_of(t)))}" for t in texts)

    # LLaMA's kind of SentencePiece model, in a model directory that was trained to gist
    llama = train_sp(vocab_size=420, byte_fallback=True, remove_extra_whitespaces=False, split_digits=True)
    sp = sentencepiece.SentencePieceProcessor(model_proto=llama)
    gist = sp.vocab_size()
    write("llama/tokenizer.model", llama)
    write("llama/tokenizer_config.json", dump({
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": {"content": "</s>"},
        "added_tokens_decoder": {str(gist): {"content": "<GIST>", "special": True, "lstrip": False, "rstrip": False}}}))
    write("llama/generation_config.json", dump({"eos_token_id": [2, 7]}))
    case("llama", CASES, sp.encode)

    # every other choice: no byte fallback, extra spaces removed, user defined pieces, suffix spaces
    for name, more in (("plain", {}), ("suffix", {"treat_whitespace_as_suffix": True})):
        model = train_sp(vocab_size=110, user_defined_symbols=["<tool>", "order"], **more)
        write(name + ".model", model)
        case(name + ".model", CASES + SPECIAL, sentencepiece.SentencePieceProcessor(model_proto=model).encode)

        if name == "plain":
            model = mark_unused(model, ["\u2581the", "in", "er", "or", "\u2581s"])
            write("unused.model", model)
            case("unused.model", CASES + [TEXT[:200], "then there, inner order shop"],
                 sentencepiece.SentencePieceProcessor(model_proto=model).encode)

    # unigram models: as T5's, with a map of characters; with user defined pieces and bytes; and a BPE model with a map
    for name, more in (
            ("t5/spiece.model", {"model_type": "unigram", "rules": True, "vocab_size": 150, "pad_id": 0, "eos_id": 1,
                                 "unk_id": 2, "bos_id": -1}),
            ("unigram.model", {"model_type": "unigram", "vocab_size": 400, "byte_fallback": True,
                               "remove_extra_whitespaces": False, "user_defined_symbols": ["<tool>", "order", "nn"]}),
            ("mapped.model", {"rules": True, "vocab_size": 110, "user_defined_symbols": ["<tool>", "order"]})):
        model = train_sp(**more)
        write(name, model)
        case(name, CASES + SPECIAL + MAPPED, sentencepiece.SentencePieceProcessor(model_proto=model).encode)
    write("t5/config.json", dump({"model_type": "t5", "eos_token_id": 1}))

    # byte-level BPE four times: tokenizer.json, vocab.json + merges.txt as GPT-2 and as Qwen2 reads them, tiktoken
    model = train_bytes()
    merges = [tuple(m) for m in model["merges"]]
    n = len(model["vocab"])

    def bpe(pattern, **more):
        tok = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, **more))
        tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tok.decoder = decoders.ByteLevel()
        return tok

    tok = bpe(LLAMA3, ignore_merges=True)
    tok.normalizer = normalizers.NFC()
    tok.add_special_tokens([AddedToken("<|begin_of_text|>"), AddedToken("<|eot_id|>"), AddedToken("<|start_header_id|>"),
                            AddedToken("<|end_header_id|>"), AddedToken("<GIST>", lstrip=True, rstrip=True),
                            AddedToken("<l>", lstrip=True)])
    tok.add_tokens([AddedToken("<tool>"), AddedToken("word", single_word=True, normalized=False),
                    AddedToken("\u00e9t\u00e9", normalized=True)])
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", n)])])
    write("bytes/tokenizer.json", dump(json.loads(tok.to_str())))
    write("bytes/config.json", dump({"eos_token_id": n + 1}))
    case("bytes", CASES + SPECIAL, lambda t: tok.encode(t, add_special_tokens=False).ids)

    files = {"vocab.json": dump(model["vocab"])}
    crlf = "#version: 0.2\r\n" + "".join(f"{a} {b}\r\n" for a, b in merges)
    for name, text in (("gpt2", crlf.replace("\r", "")), ("qwen2", crlf)):
        write(name + "/vocab.json", files["vocab.json"])
        write(name + "/merges.txt", text)
    tok = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    case("gpt2", CASES, lambda t: tok.encode(t).ids)
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    write("qwen2/tokenizer_config.json", dump({
        "tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>",
        "added_tokens_decoder": {str(n + i): {"content": c, "special": True} for i, c in enumerate(chat)}}))
    tok2 = bpe(QWEN2)
    tok2.normalizer = normalizers.NFC()
    case("qwen2", CASES, lambda t: tok2.encode(t).ids)

    byte_of = {c: b for b, c in tiktoken_letters().items()}
    ranks = {bytes(byte_of[c] for c in piece): i for piece, i in model["vocab"].items()}
    write("tiktoken/tokenizer.model", "".join(f"{base64.b64encode(b).decode()} {i}\n" for b, i in sorted(
        ranks.items(), key=lambda x: x[1])))
    enc = tiktoken.Encoding("fixture", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={})
    case("tiktoken", CASES, enc.encode_ordinary)

    # the SentencePiece vocabulary as tokenizer.json
    vocab = {sp.id_to_piece(i): i for i in range(sp.vocab_size())}
    pairs = sorted((-sp.get_score(i), vocab[p[:k]], vocab[p[k:]], p[:k], p[k:]) for p, i in vocab.items()
                   for k in range(1, len(p)) if i >= 259 and p[:k] in vocab and p[k:] in vocab)
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[p[3:] for p in pairs], unk_token="<unk>", fuse_unk=True,
                               byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tok.add_special_tokens(["<s>", "</s>", "<unk>", AddedToken("<GIST>", lstrip=True, rstrip=True)])
    write("sp.json", dump(json.loads(tok.to_str())))
    case("sp.json", CASES + SPECIAL, lambda t: tok.encode(t).ids)
    tok.add_tokens([AddedToken("<tool>"), AddedToken("shop opens")])
    write("normalized.json", dump(json.loads(tok.to_str())))
    case("normalized.json", CASES + SPECIAL + ["x<tool> <tool>y", "<GIST><tool>the  <tool>", "the shop opens at"],
         lambda t: tok.encode(t).ids)

    # the same, with spaces by Metaspace as newer files have them, and added tokens of every kind; "never" with the field of
    # older files, too
    for name, more in (("first", {"prepend_scheme": "first", "split": False}),
                       ("always", {"prepend_scheme": "always", "split": False}),
                       ("split", {"prepend_scheme": "always", "split": True}),
                       ("never", {"prepend_scheme": "never", "split": False})):
        tok = Tokenizer(models.BPE(vocab=vocab, merges=[p[3:] for p in pairs], unk_token="<unk>", fuse_unk=True,
                                   byte_fallback=True))
        tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", **more)
        tok.add_special_tokens(["<s>", "</s>", "<unk>", AddedToken("<GIST>", lstrip=True, rstrip=True),
                                AddedToken("<l>", lstrip=True, normalized=False), AddedToken("<|eot_id|>")])
        tok.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("word", single_word=True, normalized=False)])
        tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        root = json.loads(tok.to_str())
        if name == "never":
            root["pre_tokenizer"]["add_prefix_space"] = False
            tok = Tokenizer.from_str(json.dumps(root))
        write(f"meta-{name}.json", dump(root))
        case(f"meta-{name}.json", CASES + SPECIAL, lambda t: tok.encode(t, add_special_tokens=False).ids)
    write("cases.txt", "\n".join(lines) + "\n")

    data = os.environ.get("GIST_TEST_DATA", "../shared/data")
    t5 = sentencepiece.SentencePieceProcessor(model_file=os.path.join(data, "tokenizers", "t5", "spiece.model"))
    write("t5.txt", "# made by tools/make_token_fixtures.py\n" + "".join(
        f"{escape(t)}\t{' '.join(map(str, t5.encode(t)))}\n" for t in CASES + SPECIAL + MAPPED + NFKC))
    ids = t5.encode(LONG)
    print("long text of test_token_unigram.c:", len(ids), sum((i + 1) * x for i, x in enumerate(ids)))


if __name__ == "__main__":
    main()
