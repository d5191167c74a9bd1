/* make_tiny.c - a tiny random LLaMA directory: config.json, model.safetensors, tokenizer.json.  For the demonstration
 * of the mechanics and the tests of the commands; what such a model answers is noise.
 *
 *     cc dev/make_tiny.c -o make_tiny -lm && ./make_tiny DIR [--seed N] [--context N] [--layers N] [--f32] [--no-gist]
 *
 *   model      width 64, feed-forward 128, 4 heads, 2 key/value heads, own head; normal weights from splitmix64
 *   tokenizer  byte-level BPE: 256 bytes, some merges of English letters, <s>, </s>, <GIST>
 *
 * It writes the safetensors format by itself (length, JSON header, data), so it needs nothing of the library and builds
 * alone.  The same arguments give the same bytes.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { C = 64, F = 128, H = 4, G = 2, D = C / H, BYTES = 256 };
static const char *const merges[] = { "t h",   "i n", "th e", "a n", "e r", "r e", "o n", "in g", "e n", "an d",
                                      "Ġ the", "Ġ o", "Ġ a",  "Ġ w", "s t", "o u", "Ġ s", "Ġ b",  "o r", "a t" };
enum { MERGES = sizeof merges / sizeof *merges, BOS = BYTES + MERGES, EOS, GIST };

typedef struct options {
    const char *dir;
    uint64_t seed;
    int context, layers;
    bool f32, gist;
} options;

static void die(const char *what, const char *name) {
    fprintf(stderr, "make_tiny: %s %s\n", what, name);
    exit(1);
}

static FILE *create(const char *dir, const char *name) {
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path) die("name too long:", dir);
    FILE *f = fopen(path, "wb");
    if (!f) die("cannot create", path);
    return f;
}

static void close_or_die(FILE *f, const char *name) {
    if (ferror(f) || fclose(f) != 0) die("cannot write", name);
}

/* ---- config.json ---- */

static int vocabulary(const options *o) {
    return GIST + (o->gist ? 1 : 0);
}

static void write_config(const options *o) {
    FILE *f = create(o->dir, "config.json");
    fprintf(
        f,
        "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n  \"hidden_act\": \"silu\",\n"
        "  \"num_hidden_layers\": %d,\n  \"hidden_size\": %d,\n  \"intermediate_size\": %d,\n"
        "  \"num_attention_heads\": %d,\n  \"num_key_value_heads\": %d,\n  \"vocab_size\": %d,\n"
        "  \"max_position_embeddings\": %d,\n  \"rms_norm_eps\": 1e-05,\n  \"rope_theta\": 10000.0,\n"
        "  \"tie_word_embeddings\": false,\n  \"bos_token_id\": %d,\n  \"eos_token_id\": %d\n}\n",
        o->layers, C, F, H, G, vocabulary(o), o->context, BOS, EOS);
    close_or_die(f, "config.json");
}

/* ---- tokenizer.json ---- */

/* The letter that stands for a byte in byte-level BPE: printable Latin-1 for itself, the others from U+0100 on. */
static int letter_of(int byte) {
    int next = 0x100;
    for (int b = 0; b < BYTES; b++) {
        bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte) return itself ? b : next;
        next += !itself;
    }
    return 0;
}

static void json_letter(FILE *f, int cp) {
    if (cp == '"' || cp == '\\')
        fprintf(f, "\\%c", cp);
    else if (cp < 0x80)
        fputc(cp, f);
    else
        fprintf(f, "\\u%04x", (unsigned)cp);
}

static void added(FILE *f, int id, const char *text, bool strip, const char *end) {
    fprintf(f,
            "    {\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": %s, \"rstrip\": %s, "
            "\"normalized\": false, \"special\": true}%s\n",
            id, text, strip ? "true" : "false", strip ? "true" : "false", end);
}

static void write_tokenizer(const options *o) {
    FILE *f = create(o->dir, "tokenizer.json");
    fputs("{\n  \"version\": \"1.0\",\n  \"added_tokens\": [\n", f);
    added(f, BOS, "<s>", false, ",");
    added(f, EOS, "</s>", false, o->gist ? "," : "");
    if (o->gist) added(f, GIST, "<GIST>", true, "");
    fputs("  ],\n  \"normalizer\": null,\n"
          "  \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
          "\"use_regex\": true},\n",
          f);
    fprintf(
        f,
        "  \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", "
        "\"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": [], \"special_tokens\": "
        "{\"<s>\": {\"id\": \"<s>\", \"ids\": [%d], \"tokens\": [\"<s>\"]}}},\n",
        BOS);
    fputs("  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": "
          "true},\n"
          "  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
          "\"continuing_subword_prefix\": null,\n"
          "    \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
          "    \"vocab\": {",
          f);
    for (int b = 0; b < BYTES; b++) {
        fputs(b ? ", \"" : "\"", f);
        json_letter(f, letter_of(b));
        fprintf(f, "\": %d", b);
    }
    for (int i = 0; i < MERGES; i++) {
        const char *space = strchr(merges[i], ' ');
        fprintf(f, ", \"%.*s%s\": %d", (int)(space - merges[i]), merges[i], space + 1, BYTES + i);
    }
    fputs("},\n    \"merges\": [", f);
    for (int i = 0; i < MERGES; i++) fprintf(f, "%s\"%s\"", i ? ", " : "", merges[i]);
    fputs("]\n  }\n}\n", f);
    close_or_die(f, "tokenizer.json");
    f = create(o->dir, "tokenizer_config.json");
    fputs("{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_bos_token\": true}\n", f);
    close_or_die(f, "tokenizer_config.json");
}

/* ---- model.safetensors ---- */

typedef struct tensor {
    char name[80];
    int rows, cols; /* cols 0: a vector of ones */
    double scale;
} tensor;

static int list_tensors(const options *o, tensor *all) {
    static const struct {
        const char *name;
        int rows, cols;
    } layer[] = {
        { "input_layernorm", C, 0 },      { "self_attn.q_proj", C, C }, { "self_attn.k_proj", G * D, C },
        { "self_attn.v_proj", G * D, C }, { "self_attn.o_proj", C, C }, { "post_attention_layernorm", C, 0 },
        { "mlp.gate_proj", F, C },        { "mlp.up_proj", F, C },      { "mlp.down_proj", C, F },
    };
    int n = 0;
    all[n++] = (tensor){ "model.embed_tokens.weight", vocabulary(o), C, 1 };
    for (int l = 0; l < o->layers; l++)
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) {
            all[n] = (tensor){ "", layer[i].rows, layer[i].cols, layer[i].cols ? 1.5 / sqrt(layer[i].cols) : 0 };
            snprintf(all[n].name, sizeof all[n].name, "model.layers.%d.%s.weight", l, layer[i].name);
            n++;
        }
    all[n++] = (tensor){ "model.norm.weight", C, 0, 0 };
    all[n++] = (tensor){ "lm_head.weight", vocabulary(o), C, 3.0 / sqrt(C) };
    return n;
}

static double uniform(uint64_t *state) { /* (0,1) */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return ((double)((z ^ (z >> 31)) >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(uint64_t *state) {
    double r = sqrt(-2 * log(uniform(state)));
    return r * cos(6.283185307179586 * uniform(state));
}

static void put(FILE *f, uint64_t v, int bytes) { /* little-endian */
    for (int i = 0; i < bytes; i++) fputc((int)(v >> (8 * i) & 255), f);
}

static void put_number(FILE *f, double x, bool f32) {
    float v = (float)x;
    uint32_t u;
    memcpy(&u, &v, 4);
    if (f32)
        put(f, u, 4);
    else
        put(f, (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, 2);
}

static void write_weights(const options *o) {
    static tensor all[16 * 9 + 3];
    static char header[32768];
    int n = list_tensors(o, all), len = 0;
    size_t at = 0, width = o->f32 ? 4 : 2;
    uint64_t state = o->seed * 0x9e3779b97f4a7c15u;
    for (int i = 0; i < n; i++) {
        size_t bytes = (size_t)all[i].rows * (size_t)(all[i].cols ? all[i].cols : 1) * width;
        char shape[32];
        snprintf(shape, sizeof shape, all[i].cols ? "%d,%d" : "%d", all[i].rows, all[i].cols);
        len += snprintf(header + len, sizeof header - (size_t)len,
                        "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", i ? "," : "{",
                        all[i].name, o->f32 ? "F32" : "BF16", shape, at, at + bytes);
        at += bytes;
    }
    len += snprintf(header + len, sizeof header - (size_t)len, "}");
    while (len % 8) header[len++] = ' ';
    FILE *f = create(o->dir, "model.safetensors");
    put(f, (uint64_t)len, 8);
    fwrite(header, 1, (size_t)len, f);
    for (int i = 0; i < n; i++)
        for (int k = all[i].rows * (all[i].cols ? all[i].cols : 1); k > 0; k--)
            put_number(f, all[i].cols ? all[i].scale * normal(&state) : 1, o->f32);
    close_or_die(f, "model.safetensors");
}

/* ---- arguments ---- */

static long number(int argc, char **argv, int *i, long lo, long hi) {
    char *end = NULL;
    long v = *i + 1 < argc ? strtol(argv[*i + 1], &end, 10) : lo - 1;
    if (v < lo || v > hi || (end && *end)) die("a number is missing or wrong behind", argv[*i]);
    (*i)++;
    return v;
}

int main(int argc, char **argv) {
    options o = { .seed = 1, .context = 512, .layers = 4, .gist = true };
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0)
            o.seed = (uint64_t)number(argc, argv, &i, 0, 1L << 30);
        else if (strcmp(argv[i], "--context") == 0)
            o.context = (int)number(argc, argv, &i, 8, 1L << 20);
        else if (strcmp(argv[i], "--layers") == 0)
            o.layers = (int)number(argc, argv, &i, 1, 16);
        else if (strcmp(argv[i], "--f32") == 0)
            o.f32 = true;
        else if (strcmp(argv[i], "--no-gist") == 0)
            o.gist = false;
        else if (argv[i][0] != '-' && !o.dir)
            o.dir = argv[i];
        else
            die("what is", argv[i]);
    }
    if (!o.dir) die("give a directory:", "make_tiny DIR [--seed N] [--context N] [--layers N] [--f32] [--no-gist]");
    mkdir(o.dir, 0777);
    write_config(&o);
    write_tokenizer(&o);
    write_weights(&o);
    return 0;
}
