/* cmd_show.c - gist show: what a gist file, a model or a safetensors file is; what exactly is cached.
 *
 * A gist file is read like any other untrusted file: what is shown has passed every check, the checksum included.
 */
#include <sys/stat.h>

#include "cli.h"

typedef struct show_args {
    const char *path;
    bool tensors, json;
    int threads;
} show_args;

static const option table[] = {
    OPT_HEADING("What to show"),
    { OPTION_TEXT, 0, NULL, "FILE|DIR", true, offsetof(show_args, path), 0, 0, NULL,
      "a .gist file, a model (directory or .gguf file), or a .safetensors file" },
    OPT_FLAG(show_args, tensors, 0, "tensors", "every tensor too: name, type, shape, bytes"),
    OPT_JSON(show_args, json),
    OPT_INT(show_args, threads, 't', "threads", "N", 0, 256, "0",
            "threads that hash a model's weights; 0: one per core"),
};

/* ---- tensors ---- */

static void tensor_line(const tensor_view *t) {
    char shape[64];
    printf("  %-48s %-5s %-16s %zu bytes\n", t->name, dt_name(t->type), tensor_shape_text(t, shape), t->bytes);
}

/* Added to root as "tensors"; false: out of memory. */
static bool tensor_json(json_t *list, const tensor_view *t) {
    json_t *shape = json_array();
    for (int d = 0; d < t->dims; d++)
        if (json_array_append_new(shape, json_integer(t->shape[d])) != 0) {
            json_decref(shape);
            return false;
        }
    return json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "type", dt_name(t->type),
                                                 "shape", shape, "bytes", (json_int_t)t->bytes)) == 0;
}

static json_t *with_tensors(json_t *root, bool wanted, const tensor_view *const *all, size_t n) {
    if (!root || !wanted) return root;
    json_t *list = json_array();
    bool good = list != NULL;
    for (size_t i = 0; good && i < n; i++) good = tensor_json(list, all[i]);
    if (json_object_set_new(root, "tensors", list) == 0 && good) return root;
    json_decref(root);
    return NULL;
}

/* A view's address for each of a file's tensors; NULL on no memory. */
static const tensor_view **views_of(const st_file *st) {
    const tensor_view **all = mem_alloc(NULL, st->count, sizeof *all);
    for (size_t i = 0; all && i < st->count; i++) all[i] = &st->tensors[i];
    return all;
}

static uint64_t file_size(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* ---- a gist ---- */

static json_t *gist_json(const char *path, const gfile *g) {
    json_t *width = g->width ? json_integer(g->width) : NULL; /* absent without an encoder's output */
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s?, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b, "
                     "s:b, s:I, s:I, s:s, s:o*}",
                     "kind", "gist", "file", path, "id", g->id, "model_fingerprint", g->model, "tokenizer_fingerprint",
                     g->tokenizer, "family", g->family, "template", g->template_name, "condition", g->condition,
                     "kernels", g->kernels, "kv", dt_name(g->type), "adapter", g->adapter[0] ? g->adapter : NULL,
                     "gist_tokens", g->k, "layers", g->layers, "kv_heads", g->kv_heads, "head_dim", g->head_dim,
                     "first_position", g->first_position, "prompt_tokens", g->prompt_tokens, "factor",
                     (double)g->prompt_tokens / g->k, "rebased", (int)g->rebased, "tuned", (int)g->tuned, "kv_bytes",
                     (json_int_t)gfile_bytes(g), "file_bytes", (json_int_t)file_size(path), "checksum", "ok",
                     "output_width", width);
}

static void gist_text(const char *path, const gfile *g) {
    char rows[32], one[32], prompt[32], file[32];
    uint64_t bytes = gfile_bytes(g), token = bytes / (uint64_t)g->k;
    int next = g->first_position + g->k;
    printf("gist           %s\n", path);
    printf("id             %s\n", g->id);
    printf("cached         keys and values of %d gist token%s in each of %d layers: [%d,%d,%d], %s\n", g->k,
           g->k == 1 ? "" : "s", g->layers, g->k, g->kv_heads, g->head_dim, dt_name(g->type));
    printf("bytes          %s, %s per gist token; a cache of the whole prompt: %s\n", size_text(bytes, rows),
           size_text(token, one), size_text(token * (uint64_t)g->prompt_tokens, prompt));
    printf("stands for     %d prompt tokens (factor %.1f), template %s, condition %s\n", g->prompt_tokens,
           (double)g->prompt_tokens / g->k, g->template_name, g->condition);
    if (g->width)
        printf("positions      relative: what follows stands right behind it\n"
               "encoder output [%d,%d], f32\n",
               g->k, g->width);
    else
        printf("positions      from %d, keys rotated%s; what follows starts at %d\n", g->first_position,
               g->rebased ? " back to 0 (rebased)" : "", next);
    printf("not in it      the prompt: neither its text nor its tokens\n");
    printf("model          %s (%s)\n", g->model, g->family);
    printf("tokenizer      %s\n", g->tokenizer);
    if (g->adapter[0]) printf("adapter        %s\n", g->adapter);
    printf("computed       %s kernels%s\n", g->kernels, g->tuned ? ", then tuned by gradient descent" : "");
    printf("file           %s, safetensors, checksum ok\n", size_text(file_size(path), file));
}

static gist_status show_gist(const show_args *a, gist_error *err) {
    gfile g;
    TRY(gfile_open(&g, mem_default(), a->path, err));
    const tensor_view **all = views_of(&g.st);
    gist_status status = all ? GIST_OK : err_memory(err, "tensors");
    if (status == GIST_OK && a->json) {
        status = json_print(with_tensors(gist_json(a->path, &g), a->tensors, all, g.st.count), err);
    } else if (status == GIST_OK) {
        gist_text(a->path, &g);
        for (size_t i = 0; a->tensors && i < g.st.count; i++) tensor_line(all[i]);
    }
    mem_free(NULL, all);
    gfile_close(&g);
    return status;
}

/* ---- a safetensors file ---- */

static gist_status show_safetensors(const show_args *a, gist_error *err) {
    st_file st;
    uint64_t bytes = 0;
    char size[32];
    TRY(st_open(&st, mem_default(), a->path, err));
    const tensor_view **all = views_of(&st);
    gist_status status = all ? GIST_OK : err_memory(err, "tensors");
    for (size_t i = 0; i < st.count; i++) bytes += st.tensors[i].bytes;
    if (status == GIST_OK && a->json) {
        json_t *root = json_pack("{s:s, s:s, s:I, s:I}", "kind", "safetensors", "file", a->path, "count",
                                 (json_int_t)st.count, "bytes", (json_int_t)bytes);
        status = json_print(with_tensors(root, true, all, st.count), err);
    } else if (status == GIST_OK) {
        printf("safetensors    %s, %zu tensors, %s\n", a->path, st.count, size_text(bytes, size));
        for (size_t i = 0; i < st.meta_count; i++) printf("  %s = %s\n", st.meta[i].key, st.meta[i].value);
        for (size_t i = 0; i < st.count; i++) tensor_line(all[i]);
    }
    mem_free(NULL, all);
    st_close(&st);
    return status;
}

/* ---- a model ---- */

typedef struct model {
    llama_config c;
    tokenizer *tok;
    weights w;
    pool *pool;
    char fingerprint[33], tok_fingerprint[33];
    size_t tensors[DT_COUNT];
    uint64_t bytes[DT_COUNT], all_bytes, memory; /* memory: matrices as stored, as packed for the kernels */
} model;

static uint64_t kv_token(const llama_config *c, dtype t) {
    return 2 * (uint64_t)c->L * dt_bytes(t, (size_t)c->G * (size_t)c->D);
}

static gist_status open_model(model *m, const show_args *a, gist_error *err) {
    char embed_name[128];
    const gist_allocator *alloc = mem_default();
    TRY(engine_open_files(a->path, alloc, &m->c, &m->tok, &m->w, err));
    TRY(pool_create(alloc, a->threads, &m->pool, err));
    progress("hashing the weights of %s ...", a->path);
    gist_status status = engine_fingerprint(&m->c, m->tok, &m->w, m->pool, alloc, m->fingerprint, err);
    progress_end();
    TRY(status);
    hash_hex(tok_fingerprint(m->tok), m->tok_fingerprint);
    int rows;
    llama_row_name(embed_name, llama_table(&m->c, &rows), 0, m->w.gguf);
    for (size_t i = 0; i < weights_count(&m->w); i++) {
        const tensor_view *t = weights_at(&m->w, i);
        bool embed = strcmp(t->name, embed_name) == 0; /* read from the file's map, not packed */
        m->tensors[t->type]++;
        m->bytes[t->type] += t->bytes;
        m->all_bytes += t->bytes;
        if (t->dims == 2 && (!embed || m->c.tied))
            m->memory += op_weight_bytes(t->type, (int)t->shape[0], (int)t->shape[1]);
    }
    return GIST_OK;
}

static void close_model(model *m) {
    pool_free(m->pool);
    weights_close(&m->w);
    tok_close(m->tok);
}

/* The scaling of rotary frequencies: its name and parameters. */
static json_t *scaling_json(const llama_rope *r) {
    if (r->kind == ROPE_PLAIN) return json_null();
    if (r->kind == ROPE_LINEAR)
        return json_pack("{s:s, s:f}", "type", llama_rope_name(r->kind), "factor", (double)r->factor);
    return json_pack("{s:s, s:f, s:f, s:f, s:i}", "type", llama_rope_name(r->kind), "factor", (double)r->factor,
                     "low_freq_factor", (double)r->low, "high_freq_factor", (double)r->high, "original_context",
                     r->original);
}

static void scaling_text(const llama_rope *r) {
    if (r->kind == ROPE_PLAIN) return;
    printf("rotary scaling %s, factor %g", llama_rope_name(r->kind), (double)r->factor);
    if (r->kind == ROPE_LLAMA3)
        printf(", of frequencies below %g to %g turns in %d tokens", (double)r->low, (double)r->high, r->original);
    putchar('\n');
}

static json_t *id_json(int32_t id) {
    return id < 0 ? json_null() : json_integer(id);
}

static json_t *model_json(const char *path, const model *m) {
    const llama_config *c = &m->c;
    json_t *types = json_object(), *kv = json_object();
    for (int t = 0; t < DT_COUNT; t++) {
        if (m->tensors[t])
            json_object_set_new(
                types, dt_name((dtype)t),
                json_pack("{s:I, s:I}", "count", (json_int_t)m->tensors[t], "bytes", (json_int_t)m->bytes[t]));
        if (op_kv_fits((dtype)t, c->D))
            json_object_set_new(kv, dt_name((dtype)t), json_integer((json_int_t)kv_token(c, (dtype)t)));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:f, s:o, s:s, s:f, s:b, s:I,"
                     " s:I, s:o, s:I, s:o, s:{s:s, s:i, s:o, s:o, s:o, s:s}, s:s, s:o*}",
                     "kind", "model", m->w.gguf ? "file" : "directory", path, "format",
                     m->w.gguf ? "gguf" : "safetensors", "family", llama_families[c->family].name, "layers", c->L,
                     "width", c->C, "ffn", c->F, "heads", c->H, "kv_heads", c->G, "head_dim", c->D, "vocab", c->V,
                     "context", c->context, "window", c->window ? json_integer(c->window) : json_null(), "rope_theta",
                     (double)c->theta, "rope_scaling", scaling_json(&c->rope), "gist_positions",
                     c->gist_spread ? "spread" : "end", "norm_eps", (double)c->eps, "tied_head", (int)c->tied,
                     "parameters", (json_int_t)llama_parameters(c), "weight_bytes", (json_int_t)m->all_bytes, "types",
                     types, "memory_bytes", (json_int_t)m->memory, "kv_bytes_per_token", kv, "tokenizer", "kind",
                     tok_kind(m->tok), "pieces", tok_size(m->tok), "bos", id_json(tok_bos(m->tok)), "eos",
                     id_json(tok_eos(m->tok)), "gist", id_json(tok_gist(m->tok)), "fingerprint", m->tok_fingerprint,
                     "fingerprint", m->fingerprint, "encoder_layers", c->encoder ? json_integer(c->encoder) : NULL);
}

static void special_text(const tokenizer *t, const char *what, int32_t id) {
    if (id < 0) {
        printf(", no %s", what);
        return;
    }
    printf(", %s %d ", what, id);
    print_piece(t, id, stdout);
}

static void model_text(const char *path, const model *m) {
    const llama_config *c = &m->c;
    char a[32], b[32];
    printf("model          %s\n", path);
    printf("family         %s: ", llama_families[c->family].name);
    if (c->encoder) printf("%d encoder and ", c->encoder);
    printf("%d %slayers, width %d, feed-forward %d, %d heads of %d, %d key/value heads\n", c->L,
           c->encoder ? "decoder " : "", c->C, c->F, c->H, c->D, c->G);
    printf("vocabulary     %d, %s\n", c->V, c->tied ? "the head is the embedding" : "head of its own");
    printf("context        %d tokens, ", c->context);
    if (c->encoder)
        printf("positions relative: %d buckets up to %d", c->near.buckets, c->near.most);
    else
        printf("rotary base %g", (double)c->theta);
    printf(", norm epsilon %g\n", (double)c->eps);
    if (c->window) printf("window         a token sees the last %d tokens, itself included\n", c->window);
    scaling_text(&c->rope);
    if (c->gist_spread) printf("gist tokens    at positions spread over the prompt\n");
    printf("parameters     %llu\n", (unsigned long long)llama_parameters(c));
    printf("weights        %zu tensors, %s:", weights_count(&m->w), size_text(m->all_bytes, a));
    for (int t = 0; t < DT_COUNT; t++)
        if (m->tensors[t]) printf(" %zu %s", m->tensors[t], dt_name((dtype)t));
    printf("\ntokenizer      %s, %d pieces", tok_kind(m->tok), tok_size(m->tok));
    special_text(m->tok, "BOS", tok_bos(m->tok));
    special_text(m->tok, "EOS", tok_eos(m->tok));
    if (tok_gist(m->tok) >= 0)
        printf(", <GIST> %d\n", tok_gist(m->tok));
    else
        printf("\n               no <GIST>: added at load as the mean embedding; this model was not trained to gist\n");
    printf("memory         about %s for the matrices as stored; bf16: at most %s\n", size_text(m->memory, a),
           size_text(2 * llama_parameters(c), b));
    printf("KV cache       per token: %s in bf16 or f16", size_text(kv_token(c, DT_BF16), a));
    if (op_kv_fits(DT_Q8_0, c->D)) printf(", %s in q8_0", size_text(kv_token(c, DT_Q8_0), a));
    printf(", %s in f32; full context: %s in bf16\n", size_text(kv_token(c, DT_F32), a),
           size_text(kv_token(c, DT_BF16) * (uint64_t)c->context, b));
    printf("fingerprint    %s  (config, tokenizer, every weight byte)\n", m->fingerprint);
    printf("tokenizer's    %s\n", m->tok_fingerprint);
}

static gist_status show_model(const show_args *a, gist_error *err) {
    model m = { 0 };
    gist_status status = open_model(&m, a, err);
    if (status == GIST_OK && a->json) {
        status = json_print(with_tensors(model_json(a->path, &m), a->tensors, m.w.all, m.w.count), err);
    } else if (status == GIST_OK) {
        model_text(a->path, &m);
        for (size_t i = 0; a->tensors && i < weights_count(&m.w); i++) tensor_line(weights_at(&m.w, i));
    }
    close_model(&m);
    return status;
}

/* ---- the command ---- */

static int run(const command *self, int argc, char **argv) {
    show_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    static const char suffix[] = ".safetensors";
    size_t len = strlen(a.path), n = sizeof suffix - 1;
    gist_error err = { 0 };
    gist_status status;
    if (path_is_dir(a.path) || gguf_is_file(a.path))
        status = show_model(&a, &err);
    else if (len > n && strcmp(a.path + len - n, suffix) == 0)
        status = show_safetensors(&a, &err);
    else
        status = show_gist(&a, &err);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_show = {
    .group = "Look inside",
    .name = "show",
    .summary = "what a gist file or a model is: shapes, bytes, fingerprints, what exactly is cached",
    .usage = "FILE|DIR [--tensors] [--json]",
    .details = "A gist file is shown only when it is sound: every shape and the checksum are verified.",
    .example = "gist show shop.gist\ngist show models/shop --json",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
