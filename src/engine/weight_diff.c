/* weight_diff.c - published weight diffs: what they are added to, and the sum that tells whether it worked.
 *
 *   model = base + diff             in f32, a few rows at a time (llama_convert.c); rows that only the diff has, those
 *                                   of <GIST>, are its own
 *   sum   = Σ over all tensors      in f64; and the same with the rotary inv_freq buffer [D/2] of each layer, which
 *                                   state dicts of the paper's time hold as tensors:
 *                                     base's + diff's where a file has them, else the base's is worked out,
 *                                     theta^(-2i/D); no weight depends on them, and none is written
 *
 * The authors of gisting publish the sum for their three LLaMA-7B models.  Theirs was accumulated in f32, where numbers
 * near 50,000 lie 2^-8 apart: 323 additions that round by up to half of that may be off by 0.63, and the sums of the
 * tensors by some tenths.  DIFF_TOLERANCE allows for that.  The three sums are 44 and more apart, and one that lacks
 * the buffers is off by 238.7.
 */
#include <inttypes.h>
#include <math.h>

#include "engine/engine_int.h"

enum { MOST_MISSING_ROWS = 64 };

static const struct published {
    const char *name;
    double sum;
} published[] = {
    { "LLaMA-7B gist", 50547.9570 },
    { "LLaMA-7B pos_control", 50596.9141 },
    { "LLaMA-7B neg_control", 50503.8789 },
};

/* ---- the base ---- */

static gist_status check_same(const char *what, int base, int diff, gist_error *err) {
    if (base == diff) return GIST_OK;
    return err_set(err, GIST_ERR_MISMATCH, "the base has %s %d, the diff %d: not of one model", what, base, diff);
}

gist_status diff_open_base(const char *dir, const llama_config *cfg, const gist_allocator *alloc, llama_config *base,
                           weights *w, gist_error *err) {
    if (!path_is_dir(dir))
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: the base of a weight diff is a Hugging Face directory", dir);
    TRY(llama_config_read(base, alloc, dir, err));
    TRY(check_same("num_hidden_layers", base->L, cfg->L, err));
    TRY(check_same("hidden_size", base->C, cfg->C, err));
    TRY(check_same("intermediate_size", base->F, cfg->F, err));
    TRY(check_same("num_attention_heads", base->H, cfg->H, err));
    TRY(check_same("num_key_value_heads", base->G, cfg->G, err));
    TRY(check_same("head_dim", base->D, cfg->D, err));
    if (base->family != cfg->family)
        return err_set(err, GIST_ERR_MISMATCH, "the base is a %s model, the diff one of %s",
                       llama_families[base->family].name, llama_families[cfg->family].name);
    if (base->V > cfg->V || cfg->V - base->V > MOST_MISSING_ROWS)
        return err_set(err, GIST_ERR_MISMATCH,
                       "the base has %d rows in its vocabulary, the diff %d, expected up to %d more than the base",
                       base->V, cfg->V, MOST_MISSING_ROWS);
    return weights_open(w, alloc, dir, err);
}

/* ---- the tokenizer ---- */

/* Does the directory hold one of the files that a tokenizer begins with? */
static gist_status find_own(const char *dir, const gist_allocator *alloc, bool *found, gist_error *err) {
    static const char *const names[] = { "tokenizer.model", "tokenizer.json", "vocab.json" };
    *found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && !*found; i++) {
        char *path = path_join(alloc, dir, names[i]);
        if (!path) return err_memory(err, "path of a tokenizer");
        *found = path_exists(path);
        mem_free(alloc, path);
    }
    return GIST_OK;
}

gist_status diff_open_tokenizer(const char *diff, const char *base, const llama_config *cfg,
                                const llama_config *base_cfg, const gist_allocator *alloc, const log_sink *log,
                                tokenizer **out, gist_error *err) {
    bool own;
    TRY(find_own(diff, alloc, &own, err));
    TRY(tok_open(own ? diff : base, alloc, out, err));
    int size = tok_size(*out);
    if (tok_gist(*out) >= 0 || size >= cfg->V || cfg->V == base_cfg->V) return GIST_OK;
    log_msg(log, GIST_LOG_WARN, "the tokenizer files name no <GIST>: it is token %d, the first that they leave free",
            size);
    return tok_add_gist(*out, size, err);
}

/* ---- the sum ---- */

static double tensor_sum(const tensor_view *t) {
    double sum = 0;
    const uint8_t *p = t->data;
    for (size_t i = 0, n = tensor_count(t); i < n; i++, p += dt_bytes(t->type, 1)) {
        float x;
        dt_to_f32(&x, p, t->type, 1);
        sum += (double)x;
    }
    return sum;
}

gist_status diff_sum_buffers(diff_sum *s, const llama_config *cfg, const weights *diff, const weights *base,
                             const gist_allocator *alloc, gist_error *err) {
    float *freq = mem_alloc(alloc, (size_t)cfg->D / 2, sizeof *freq);
    if (!freq) return err_memory(err, "rotary frequencies");
    double worked_out = 0, all = 0;
    llama_frequencies(cfg, freq);
    for (int i = 0; i < cfg->D / 2; i++) worked_out += (double)freq[i];
    mem_free(alloc, freq);
    s->buffers = s->buffers_in_files = 0;
    for (int layer = 0; layer < cfg->L; layer++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%d.self_attn.rotary_emb.inv_freq", layer);
        const tensor_view *a = weights_find(base, name), *b = weights_find(diff, name);
        all += (a ? tensor_sum(a) : worked_out) + (b ? tensor_sum(b) : 0);
        s->buffers++;
        s->buffers_in_files += a != NULL;
    }
    s->with_buffers = all;
    return GIST_OK;
}

void diff_compare(diff_sum *s, double sum, const llama_config *cfg) {
    s->weights = sum;
    s->with_buffers += sum;
    bool is_7b = cfg->family == FAMILY_LLAMA && cfg->L == 32 && cfg->C == 4096 && cfg->F == 11008 && cfg->H == 32 &&
                 cfg->G == 32 && cfg->V == 32001;
    s->nearest = NULL;
    if (!is_7b) return;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        double off = fabs(s->with_buffers - published[i].sum);
        if (s->nearest && !(off < fabs(s->with_buffers - s->published))) continue;
        s->nearest = published[i].name;
        s->published = published[i].sum;
    }
    s->matches = fabs(s->with_buffers - s->published) <= DIFF_TOLERANCE;
}
