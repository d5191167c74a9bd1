/* cmd_logits.c - gist logits: what the model expects next, behind a text, ids, or a gist.
 *
 * Rows are fed a few at a time, so that --all needs little memory; any cut gives the same bits.
 */
#include <math.h>

#include "cli.h"

enum { ROWS = 16 };

typedef struct logits_args {
    model_args model;
    const char *prompt, *ids, *file, *gist, *target;
    int top, kv;
    bool all, special, no_bos, json, quiet, force;
} logits_args;

static const option table[] = {
    OPT_HEADING("Tokens"),
    OPT_MODEL(logits_args, model),
    OPT_TEXT(logits_args, prompt, 'p', "prompt", "TEXT", NULL, "plain text, no template around it"),
    OPT_TEXT(logits_args, file, 'f', "file", "FILE", NULL, "the text from a file (- standard input), to the last byte"),
    OPT_TEXT(logits_args, ids, 0, "ids", "1,2,3", NULL, "token ids"),
    OPT_FLAG(logits_args, special, 's', "special", "recognise special tokens written in the text, <GIST> included"),
    OPT_FLAG(logits_args, no_bos, 0, "no-bos", "do not begin the text with BOS (never done behind a gist)"),
    OPT_TEXT(logits_args, gist, 'g', "gist", "FILE", NULL, "a gist file to stand in front"),
    OPT_TEXT(logits_args, target, 0, "target", "1,2,3", NULL,
             "encoder-decoder models: ids of the answer so far, behind the token that it begins with"),
    OPT_FLAG(logits_args, force, 0, "force", "accept a gist of another model when every shape fits"),
    OPT_HEADING("Output"),
    OPT_FLAG(logits_args, all, 'a', "all", "behind every token, not only the last"),
    OPT_INT(logits_args, top, 0, "top", "N", 0, 1 << 20, "10",
            "show the N most probable tokens; 0: every logit, in order of id"),
    OPT_JSON(logits_args, json),
    OPT_QUIET(logits_args, quiet),
    OPT_KV(logits_args, kv, "number type of keys and values; auto: the gist's, else bf16"),
    OPT_MACHINE(logits_args, model),
};

typedef struct report {
    const logits_args *a;
    const tokenizer *t;
    int V;
    int32_t *order; /* [V] */
    json_t *rows;   /* with --json */
} report;

/* ---- one row ---- */

/* The `top` largest logits to the front of order, larger first, equal ones by id: a heap, so that a few are cheap. */
static bool before(const float *x, int32_t a, int32_t b) {
    return x[a] > x[b] || (!(x[a] < x[b]) && a < b);
}

static void sift(const float *x, int32_t *heap, int n, int i) {
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(x, heap[child + 1], heap[child])) child++;
        if (!before(x, heap[child], heap[i])) return;
        int32_t id = heap[i];
        heap[i] = heap[child];
        heap[child] = id;
    }
}

/* The next most probable token leaves the heap of n. */
static int32_t pop(const float *x, int32_t *heap, int n) {
    int32_t best = heap[0];
    heap[0] = heap[n - 1];
    sift(x, heap, n - 1, 0);
    return best;
}

static double log_sum(const float *x, int V) {
    double top = (double)x[0], sum = 0;
    for (int v = 1; v < V; v++) top = (double)x[v] > top ? (double)x[v] : top;
    for (int v = 0; v < V; v++) sum += exp((double)x[v] - top);
    return top + log(sum);
}

static json_t *one_json(const report *r, const float *x, int32_t id, double norm) {
    return json_pack("{s:i, s:f, s:f, s:o}", "id", id, "logit", (double)x[id], "logprob", (double)x[id] - norm, "piece",
                     json_piece_of(r->t, id));
}

static void one_text(const report *r, const float *x, int position, int32_t id, double norm) {
    if (r->a->all) printf("%d\t", position);
    printf("%d\t%.9g\t%.6f\t", id, (double)x[id], (double)x[id] - norm);
    print_piece(r->t, id, stdout);
    putchar('\n');
}

static gist_status add_row(report *r, const float *x, int position, int32_t token, gist_error *err) {
    int top = r->a->top && r->a->top < r->V ? r->a->top : r->V;
    double norm = log_sum(x, r->V);
    json_t *list = r->a->json ? json_array() : NULL;
    int bad = r->a->json && !list;
    for (int v = 0; v < r->V; v++) r->order[v] = v;
    for (int i = r->V / 2 - 1; r->a->top && i >= 0; i--) sift(x, r->order, r->V, i);
    for (int i = 0; i < top && !bad; i++) {
        int32_t id = r->a->top ? pop(x, r->order, r->V - i) : i;
        if (!r->a->json)
            one_text(r, x, position, id, norm);
        else
            bad = json_array_append_new(list, r->a->top ? one_json(r, x, id, norm) : json_real((double)x[id]));
    }
    if (r->a->json && !bad)
        bad = json_array_append_new(r->rows, json_pack("{s:i, s:i, s:O}", "position", position, "token", token,
                                                       r->a->top ? "top" : "logits", list));
    json_decref(list);
    return bad ? err_set(err, GIST_ERR_MEMORY, "logits at position %d cannot be written as JSON", position) : GIST_OK;
}

/* ---- all rows ---- */

static gist_status feed(report *r, gist_session *s, const tok_ids *ids, float *logits, gist_error *err) {
    size_t last = ids->n - 1, n;
    TRY(session_reserve(s, (int)ids->n, err));
    if (!r->a->all && last > 0) TRY(gist_session_feed(s, ids->id, last, NULL, err));
    for (size_t at = r->a->all ? 0 : last; at < ids->n; at += n) {
        n = ids->n - at < ROWS ? ids->n - at : ROWS;
        int position = gist_session_position(s);
        TRY(gist_session_feed_all(s, ids->id + at, n, logits, err));
        for (size_t i = 0; i < n; i++)
            TRY(add_row(r, logits + i * (size_t)r->V, position + (int)i, ids->id[at + i], err));
    }
    return GIST_OK;
}

static gist_status print_all(const logits_args *a, gist_engine *e, gist_session *s, const tok_ids *ids,
                             gist_error *err) {
    report r = { .a = a, .t = engine_tokenizer(e), .V = engine_model(e)->vocab };
    float *logits = mem_alloc(NULL, (size_t)r.V * (a->all ? ROWS : 1), sizeof *logits);
    r.order = mem_alloc(NULL, (size_t)r.V, sizeof *r.order);
    if (a->json) r.rows = json_array();
    gist_status status = logits && r.order && (r.rows || !a->json) ? GIST_OK : err_memory(err, "logits");
    if (status == GIST_OK) status = feed(&r, s, ids, logits, err);
    if (status == GIST_OK && a->json)
        status = json_print(
            json_pack("{s:i, s:o, s:O}", "vocab", r.V, "ids", json_ids_of(ids->id, ids->n), "rows", r.rows), err);
    json_decref(r.rows);
    mem_free(NULL, r.order);
    mem_free(NULL, logits);
    return status;
}

static gist_status get_ids(const logits_args *a, const gist_engine *e, const text *in, tok_ids *ids, gist_error *err) {
    const tokenizer *t = engine_tokenizer(e);
    unsigned flags = a->special ? TOK_SPECIAL : 0u;
    if (!a->no_bos && !a->gist && tok_adds_bos(t)) flags |= TOK_BOS;
    if (engine_model(e)->cfg.encoder) flags |= TOK_EOS;
    TRY(a->ids ? parse_ids(in->p, in->len, engine_model(e)->vocab, ids, err)
               : tok_encode(t, in->p, in->len, flags, ids, err));
    if (ids->n == 0) return err_set(err, GIST_ERR_TEXT, "the text is empty: there is no token to look behind");
    if (ids->n > (size_t)engine_model(e)->cfg.context)
        return err_set(err, GIST_ERR_LIMIT, "%zu tokens do not fit the model's context of %d", ids->n,
                       engine_model(e)->cfg.context);
    return GIST_OK;
}

/* The text is a source: it is encoded, and *ids becomes what the decoder is fed. */
static gist_status encode(const logits_args *a, const gist_engine *e, gist_session *s, tok_ids *ids, gist_error *err) {
    const llama_config *c = &engine_model(e)->cfg;
    if (!c->encoder && a->target)
        return err_set(err, GIST_ERR_USAGE, "--target is for encoder-decoder models; this one is %s",
                       llama_families[c->family].name);
    if (!c->encoder) return GIST_OK;
    TRY(gist_session_feed(s, ids->id, ids->n, NULL, err));
    TRY(gist_session_encode(s, err));
    ids->n = 0;
    TRY(tok_ids_push(ids, c->start, err));
    return a->target ? parse_ids(a->target, strlen(a->target), engine_model(e)->vocab, ids, err) : GIST_OK;
}

static gist_status logits(const logits_args *a, const text *in, gist_error *err) {
    gist_engine *e = NULL;
    gist_session *s = NULL;
    gist *g = NULL;
    tok_ids ids;
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    o.kv = (gist_type)a->kv;
    tok_ids_init(&ids, NULL);
    gist_status status = open_engine(&a->model, a->quiet, &e, NULL, err);
    if (status == GIST_OK) status = get_ids(a, e, in, &ids, err);
    if (status == GIST_OK) status = gist_session_open(e, &o, &s, err);
    if (status == GIST_OK && a->gist) status = gist_load(e, a->gist, a->force ? GIST_LOAD_FORCE : 0u, &g, err);
    if (status == GIST_OK && g) status = gist_session_attach(s, g, err);
    if (status == GIST_OK) status = encode(a, e, s, &ids, err);
    if (status == GIST_OK) status = print_all(a, e, s, &ids, err);
    gist_session_close(s);
    gist_free(g);
    gist_engine_close(e);
    tok_ids_free(&ids);
    return status;
}

static int run(const command *self, int argc, char **argv) {
    logits_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    if ((a.prompt != NULL) + (a.file != NULL) + (a.ids != NULL) != 1)
        return usage_error(self, "logits: give exactly one of -p, -f and --ids");
    gist_error err = { 0 };
    text in = { 0 };
    gist_status status = text_read(&in, a.prompt ? a.prompt : a.ids, a.file, false, &err);
    if (status == GIST_OK) status = logits(&a, &in, &err);
    text_free(&in);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_logits = {
    .group = "Look inside",
    .name = "logits",
    .summary = "what the model expects next",
    .usage = "-m MODEL (-p TEXT | -f FILE | --ids 1,2,3) [-g IN.gist] [--all] [--top N]",
    .details = "An encoder-decoder model encodes the text, with its end token; rows are the decoder's.\n"
               "A line per token: [position with --all,] id, logit, log-probability, piece.",
    .example = "gist logits -m models/shop -p \"We open at\" --top 5",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
