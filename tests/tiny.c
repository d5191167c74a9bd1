/* tiny.c - tiny random models on disk; contracts in tiny.h. */
#include "tiny.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

static const char *const merges[][2] = { { "t", "h" }, { "th", "e" }, { "i", "n" },
                                         { "e", "r" }, { "o", "u" },  { "a", "n" } };
enum { MERGES = sizeof merges / sizeof *merges, NAME = 96 };

int tiny_vocab(const tiny_model *t) {
    return TINY_MERGED + MERGES + t->gist;
}

static FILE *create(const char *dir, const char *name) {
    char path[TEST_PATH + 32];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f) fail_msg("%s: %s", path, strerror(errno));
    return f;
}

void tiny_save_config(const tiny_model *t, const char *dir, const char *more) {
    FILE *f = create(dir, "config.json");
    fprintf(f,
            "{\"model_type\": \"%s\", \"num_hidden_layers\": %d, \"hidden_size\": %d, \"intermediate_size\": %d,\n"
            " \"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": %d,\n"
            " \"max_position_embeddings\": %d, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0,\n"
            " \"tie_word_embeddings\": %s%s%s}\n",
            llama_families[t->family].name, t->L, t->C, t->F, t->H, t->G, t->D, tiny_vocab(t), t->context,
            t->tied ? "true" : "false", t->spread ? ", \"gist_positions\": \"spread\"" : "", more ? more : "");
    assert_int_equal(fclose(f), 0);
}

/* GPT-2's letter for a byte: itself when printable, else 256, 257, ... */
static int letter(int byte) {
    int next = 256;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b > 32 && b < 127) || (b > 160 && b < 256 && b != 173);
        if (b == byte) return printable ? b : next;
        next += !printable;
    }
    return 0;
}

static void added_token(FILE *f, int id, const char *text, const char *before) {
    fprintf(f, "%s{\"id\": %d, \"content\": \"%s\", \"special\": true, \"lstrip\": false, \"rstrip\": false}", before,
            id, text);
}

void tiny_save_tokenizer(const tiny_model *t, const char *dir) {
    FILE *f = create(dir, "tokenizer.json");
    fprintf(f, "{\"version\": \"1.0\", \"added_tokens\": [");
    added_token(f, TINY_BOS, "<bos>", "");
    added_token(f, TINY_EOS, "<eos>", ", ");
    if (t->gist) added_token(f, TINY_GIST, "<GIST>", ", ");
    fprintf(
        f,
        "],\n\"normalizer\": null,\n\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false},\n"
        "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<bos>\"}},"
        " {\"Sequence\": {\"id\": \"A\"}}]},\n\"model\": {\"type\": \"BPE\", \"vocab\": {\"<bos>\": 0, \"<eos>\": 1");
    for (int b = 0; b < 256; b++) fprintf(f, ", \"\\u%04x\": %d", (unsigned)letter(b), TINY_BYTE + b);
    for (int m = 0; m < MERGES; m++) fprintf(f, ", \"%s%s\": %d", merges[m][0], merges[m][1], TINY_MERGED + m);
    fprintf(f, "},\n\"merges\": [");
    for (int m = 0; m < MERGES; m++) fprintf(f, "%s\"%s %s\"", m ? ", " : "", merges[m][0], merges[m][1]);
    fprintf(f, "]}}\n");
    assert_int_equal(fclose(f), 0);
    f = create(dir, "tokenizer_config.json");
    fprintf(f, "{\"bos_token\": \"<bos>\", \"eos_token\": \"<eos>\"}\n");
    assert_int_equal(fclose(f), 0);
}

/* ---- weights ---- */

typedef struct tensors {
    tensor_view view[256];
    char name[256][NAME];
    size_t n;
} tensors;

/* around + uniform [-scale,scale) */
static void add_tensor(tensors *all, const tiny_model *t, int rows, int cols, float around, float scale,
                       const char *field, int layer) {
    assert_true(all->n < 256);
    size_t n = (size_t)(rows ? rows : 1) * (size_t)cols;
    float *x = malloc(n * sizeof *x);
    void *data = malloc(n * sizeof *x);
    assert_non_null(x);
    assert_non_null(data);
    test_fill(x, n, scale, t->seed * 1000 + all->n);
    for (size_t i = 0; i < n; i++) x[i] += around;
    dt_from_f32(data, t->type, x, n);
    free(x);
    char *name = all->name[all->n];
    if (layer < 0)
        snprintf(name, NAME, "%s", field);
    else
        snprintf(name, NAME, "model.layers.%d.%s", layer, field);
    tensor_view v = { name,         t->type,
                      rows ? 2 : 1, { rows ? rows : cols, rows ? cols : 1, 1, 1 },
                      data,         dt_bytes(t->type, n) };
    all->view[all->n++] = v;
}

static void matrix(tensors *all, const tiny_model *t, int rows, int cols, const char *name, int layer) {
    add_tensor(all, t, rows, cols, 0, 2.5f / sqrtf((float)cols), name, layer);
}

/* What the family has beside LLaMA's. */
static void family_vectors(tensors *all, const tiny_model *t, int q, int k, int layer) {
    if (llama_families[t->family].bias) {
        add_tensor(all, t, 0, q, 0, 0.5f, "self_attn.q_proj.bias", layer);
        add_tensor(all, t, 0, k, 0, 0.5f, "self_attn.k_proj.bias", layer);
        add_tensor(all, t, 0, k, 0, 0.5f, "self_attn.v_proj.bias", layer);
    }
    if (llama_families[t->family].head_norm) {
        add_tensor(all, t, 0, t->D, 1.0f, 0.3f, "self_attn.q_norm.weight", layer);
        add_tensor(all, t, 0, t->D, 1.0f, 0.3f, "self_attn.k_norm.weight", layer);
    }
}

static void save_weights(const tiny_model *t, const char *dir) {
    char path[TEST_PATH + 32];
    tensors *all = calloc(1, sizeof *all);
    assert_non_null(all);
    int q = t->H * t->D, k = t->G * t->D, V = tiny_vocab(t);
    add_tensor(all, t, V, t->C, 0, 1.0f, "model.embed_tokens.weight", -1);
    for (int l = 0; l < t->L; l++) {
        add_tensor(all, t, 0, t->C, 1.0f, 0.3f, "input_layernorm.weight", l);
        matrix(all, t, q, t->C, "self_attn.q_proj.weight", l);
        matrix(all, t, k, t->C, "self_attn.k_proj.weight", l);
        matrix(all, t, k, t->C, "self_attn.v_proj.weight", l);
        matrix(all, t, t->C, q, "self_attn.o_proj.weight", l);
        add_tensor(all, t, 0, t->C, 1.0f, 0.3f, "post_attention_layernorm.weight", l);
        matrix(all, t, t->F, t->C, "mlp.gate_proj.weight", l);
        matrix(all, t, t->F, t->C, "mlp.up_proj.weight", l);
        matrix(all, t, t->C, t->F, "mlp.down_proj.weight", l);
        family_vectors(all, t, q, k, l);
    }
    add_tensor(all, t, 0, t->C, 1.0f, 0.3f, "model.norm.weight", -1);
    if (!t->tied) matrix(all, t, V, t->C, "lm_head.weight", -1);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    gist_error err = { 0 };
    assert_ok(st_save(mem_default(), path, all->view, all->n, NULL, 0, &err), &err);
    for (size_t i = 0; i < all->n; i++) free((void *)(uintptr_t)all->view[i].data);
    free(all);
}

char *tiny_save(const tiny_model *t, const char *name, char dir[TEST_PATH]) {
    test_tmp(dir, name);
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) fail_msg("%s: %s", dir, strerror(errno));
    tiny_save_config(t, dir, NULL);
    tiny_save_tokenizer(t, dir);
    save_weights(t, dir);
    return dir;
}

gist_engine *tiny_open(const tiny_model *t, const char *name, int threads, gist_kernels level, gist_type type,
                       const char *template_name) {
    char dir[TEST_PATH];
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    o.threads = threads;
    o.kernels = level;
    o.weights = type;
    o.template_name = template_name;
    gist_engine *e = NULL;
    gist_error err = { 0 };
    assert_ok(gist_engine_open(tiny_save(t, name, dir), &o, &e, &err), &err);
    return e;
}

gist_engine *tiny_open_chat(const tiny_model *t, const char *name) {
    char dir[TEST_PATH], path[TEST_PATH + 32];
    static const char *const files[] = { "tokenizer.json", "tokenizer_config.json" };
    static const char *const swap[][2] = { { "<bos>", "<|im_start|>" }, { "<eos>", "<|im_end|>" } };
    tiny_save(t, name, dir);
    for (int f = 0; f < 2; f++) {
        size_t len;
        sbuf out;
        sbuf_init(&out, NULL);
        snprintf(path, sizeof path, "%s/%s", dir, files[f]);
        char *text = (char *)test_read(path, &len), *p = text;
        while (*p) {
            int hit = strncmp(p, swap[0][0], 5) == 0 ? 0 : strncmp(p, swap[1][0], 5) == 0 ? 1 : -1;
            if (hit >= 0)
                sbuf_str(&out, swap[hit][1]);
            else
                sbuf_add(&out, p, 1);
            p += hit >= 0 ? 5 : 1;
        }
        test_write(path, out.p, out.len);
        sbuf_free(&out);
        free(text);
    }
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_engine *e = NULL;
    gist_error err = { 0 };
    o.threads = 1;
    o.template_name = "chatml";
    assert_ok(gist_engine_open(dir, &o, &e, &err), &err);
    return e;
}

gist_session *open_session(gist_engine *e, gist_type kv, int context) {
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    gist_session *s = NULL;
    gist_error err = { 0 };
    o.kv = kv;
    o.context = context;
    assert_ok(gist_session_open(e, &o, &s, &err), &err);
    return s;
}

void feed(gist_session *s, const int32_t *ids, int n, float *logits) {
    gist_error err = { 0 };
    assert_ok(gist_session_feed_all(s, ids, (size_t)n, logits, &err), &err);
}

double logprob(const float *logits, int V, int32_t id) {
    double sum = 0;
    float top = -INFINITY;
    for (int v = 0; v < V; v++) top = fmaxf(top, logits[v]);
    for (int v = 0; v < V; v++) sum += exp((double)logits[v] - (double)top);
    return (double)logits[id] - (double)top - log(sum);
}

gist *gist_of(gist_engine *e, const char *prompt, int k, gist_type kv) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    gist_error err = { 0 };
    o.k = k;
    o.kv = kv;
    assert_ok(gist_compress(e, prompt, strlen(prompt), &o, &g, &err), &err);
    return g;
}

void tiny_ids(int32_t *ids, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) ids[i] = TINY_BYTE + (int32_t)(test_rand(&seed) % (256 + MERGES));
}

int tiny_levels(gist_kernels out[TINY_LEVELS]) {
    int n = 0;
    for (gist_kernels k = GIST_KERNELS_SCALAR; k <= GIST_KERNELS_AMX; k = (gist_kernels)(k + 1))
        if (gist_kernels_available(k)) out[n++] = k;
    return n;
}
