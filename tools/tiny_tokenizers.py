"""Tiny tokenizers for the fixture models, trained on the text below, in the four file layouts people have.

    sentencepiece        tokenizer.model, byte fallback; <GIST> in added_tokens.json, as LLaMA-1 gist models have it
    sentencepiece-small  tokenizer.model, no byte fallback (unknown text is <unk>); <GIST> is a control piece of its own
    json                 tokenizer.json, byte-level BPE with LLaMA-3's split pattern and special tokens, no <GIST>
    merges               vocab.json + merges.txt, byte-level BPE as GPT-2, no BOS in front of text, no <GIST>
"""
import io
import json
import os
from dataclasses import dataclass, field
from typing import Callable, Optional

import sentencepiece as spm
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXT = """the sun is late and the hat is on the mat
tell the list of all the hats to me in latin
sit in the sun and list the seas at the inn
an ant and a hen sat on the tin lid at noon
the man is not in the den and his tea is hot
a list of the nine tin hats is in the last tent
listen to the tale of the little hen and the ant
then the old man had tea and sent all his hats to the inn
"""
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")


@dataclass
class Tiny:
    encode: Callable  # text -> ids, nothing added
    size: int         # rows of the model's embedding
    bos: int
    eos: int
    gist: Optional[int]
    adds_bos: bool = True
    ends: set = field(default_factory=set)


def write_json(path, name, value):
    with open(os.path.join(path, name), "w") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


def special(content):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def make_sentencepiece(path, small):
    blob = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=blob, model_type="bpe",
        vocab_size=80 if small else 295, byte_fallback=not small, character_coverage=1.0, num_threads=1,
        control_symbols=["<GIST>"] if small else [], split_digits=True, allow_whitespace_only_pieces=True,
        normalization_rule_name="identity", add_dummy_prefix=True, remove_extra_whitespaces=False, minloglevel=2)
    with open(os.path.join(path, "tokenizer.model"), "wb") as f:
        f.write(blob.getvalue())
    sp = spm.SentencePieceProcessor(model_proto=blob.getvalue())
    size, gist = sp.get_piece_size(), sp.piece_to_id("<GIST>")
    config = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>",
              "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer", "clean_up_tokenization_spaces": False,
              "model_max_length": 256}
    specials = {"bos_token": special("<s>"), "eos_token": special("</s>"), "unk_token": special("<unk>")}
    if not small:
        gist, size = size, size + 1
        write_json(path, "added_tokens.json", {"<GIST>": gist})
        specials["additional_special_tokens"] = ["<GIST>"]
    write_json(path, "special_tokens_map.json", specials)
    write_json(path, "tokenizer_config.json", config)
    return Tiny(lambda s: sp.encode(s), size, sp.bos_id(), sp.eos_id(), gist)


def train_bytes(vocab, pre, **options):
    tok = Tokenizer(models.BPE(**options))
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(TEXT.splitlines(), trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    return tok


def make_json(path):
    tok = train_bytes(270, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), ignore_merges=True)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    tok.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    bos, eos, eot = (tok.token_to_id(n) for n in names)
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{names[0]} $A", pair=f"{names[0]} $A {names[0]} $B:1",
                                      special_tokens=[(names[0], bos)])])
    tok.save(os.path.join(path, "tokenizer.json"))
    write_json(path, "tokenizer_config.json", {
        "bos_token": names[0], "eos_token": names[1], "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 256, "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(i): {**special(n), "special": True} for i, n in zip((bos, eos, eot), names)}})
    return Tiny(lambda s: tok.encode(s, add_special_tokens=False).ids, tok.get_vocab_size(), bos, eos, None,
                ends={eot})


def make_merges(path):
    tok = train_bytes(262, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    end = "<|endoftext|>"
    tok.add_special_tokens([AddedToken(end, special=True, normalized=False)])
    eos = tok.token_to_id(end)
    model = json.loads(tok.to_str())["model"]
    with open(os.path.join(path, "vocab.json"), "w") as f:
        json.dump({**model["vocab"], end: eos}, f, ensure_ascii=False)
    with open(os.path.join(path, "merges.txt"), "w") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]))
    write_json(path, "special_tokens_map.json", {"bos_token": end, "eos_token": end, "unk_token": end})
    write_json(path, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False,
                                               "model_max_length": 256})
    return Tiny(lambda s: tok.encode(s, add_special_tokens=False).ids, tok.get_vocab_size(), eos, eos, None, False)


def make(kind, path):
    if kind.startswith("sentencepiece"):
        return make_sentencepiece(path, kind.endswith("small"))
    return make_json(path) if kind == "json" else make_merges(path)
