/* test_train_loop.c - whole runs of a tiny model: learning, stopping, resuming bit for bit, being killed, refusing.
 *
 * "Bit for bit" compares model.safetensors, the checkpoint's tensors and every field of metrics.jsonl but times.
 */
#include "testing.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eval/eval.h"
#include "tiny.h"

/* ---- a run in a few words ---- */

#define ROW(t, x, y) "{\"instruction\":\"" t "\",\"input\":\"" x "\",\"output\":\"" y "\"}\n"

static const char data[] =
    ROW("double it", "one", "two") ROW("double it", "two", "four") ROW("double it", "four", "eight")
        ROW("say no", "one", "no") ROW("say no", "an other", "no") ROW("cut the end", "there", "the")
            ROW("cut the end", "one", "on") ROW("say no", "the inn", "no") ROW("name a city", "", "rome");
static const char other_data[] = ROW("double it", "four", "eight") ROW("say no", "one", "no");

typedef struct setup {
    tiny_model tiny;
    const char *model; /* name of its directory */
    int threads;
    bool add_gist, valid, teacher, scratch;
    train_run_options o;
    train_model_options m;
    const char *rows;
    int64_t stop_at;        /* asked to stop once this many steps are done; 0: never */
    float poison;           /* NaN: into a weight before the run */
    int64_t step;           /* seen last */
    bool answers, generate; /* scores: made up here; of generated answers */
    tokenizer *tok;
    op_ctx *ctx;
    int asked, best_seen, evaluations, answered;
    double first_loss, last_loss;
    train_result result;
} setup;

static setup make_setup(void) {
    tiny_model tiny = TINY_MODEL;
    setup s = { .tiny = tiny, .model = "base", .threads = 1, .rows = data };
    s.o.pack = (train_pack_options){
        .k = { 1, 3 }, .k_count = 2, .gist_token = TINY_GIST, .pairs_per_prompt = 2, .batch_pairs = 4
    };
    s.o.pack.mix[COND_GIST] = 0.5;
    s.o.pack.mix[COND_FULL] = s.o.pack.mix[COND_NONE] = 0.25;
    s.o.accumulate = 2;
    s.o.steps = 12;
    s.o.optimiser = (optimiser){ 3e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 0 };
    s.o.schedule = SCHEDULE_COSINE;
    s.o.warmup = 2;
    s.o.seed = 5;
    s.o.save_every = 3;
    s.o.eval_every = 4;
    s.m = (train_model_options){ .type = DT_F32, .lm = 1 };
    s.valid = true;
    return s;
}

static void on_step(void *ctx, const train_report *r) {
    setup *s = ctx;
    if (s->step == 0) s->first_loss = r->loss;
    s->last_loss = r->loss;
    s->step = r->step;
    assert_true(r->rows > 0 && r->labels > 0 && r->seconds > 0 && r->gflops > 0 && r->bytes > 0);
}

static void on_eval(void *ctx, int64_t step, const train_metric *m, int n, bool best) {
    setup *s = ctx;
    (void)step;
    s->evaluations++;
    s->best_seen += best;
    assert_int_equal(n, s->o.splits * 4 + s->answers + 4 * s->generate); /* gist.k1, gist.k3, full, none */
    assert_string_equal(m[1].name, "val/gist.k3");
    if (s->generate) assert_string_equal(m[5].name, "val/exact.gist.k3");
}

/* Metrics from outside: worse with every step, so the first one after the start is the best. */
static gist_status on_answers(void *ctx, train_model *tm, const train_split *split, int64_t step, train_metric *m,
                              int cap, int *n, gist_error *err) {
    setup *s = ctx;
    (void)err;
    assert_non_null(train_model_llama(tm));
    assert_int_equal(*n, 4);
    assert_true(*n < cap);
    snprintf(m[*n].name, sizeof m->name, "%s/score.gist", split->name);
    m[*n].value = 1.0 / (double)(step + 1);
    m[(*n)++].higher = true;
    s->answered++;
    return GIST_OK;
}

static gist_status on_generate(void *ctx, train_model *tm, const train_split *split, int64_t step, train_metric *m,
                               int cap, int *n, gist_error *err) {
    setup *s = ctx;
    gist_engine *e = NULL;
    eval_answers_options o = { 3, 6, 96, NULL, NULL, 0 };
    (void)step;
    TRY(engine_borrow(train_model_llama(tm), s->tok, tok_template_find("paper"), s->ctx, split->set->alloc, &e, err));
    gist_status status = eval_answers(e, split, &s->o.pack, &o, m, cap, n, err);
    gist_engine_close(e);
    return status;
}

static bool on_stop(void *ctx) {
    setup *s = ctx;
    s->asked++;
    return s->stop_at > 0 && s->step >= s->stop_at;
}

static gist_status run_in(setup *s, const char *out, const gist_allocator *alloc, gist_error *err) {
    char model[TEST_PATH];
    tokenizer *t = NULL;
    pool *p = NULL;
    op_ctx ctx;
    llama_config cfg;
    weights w = { .alloc = alloc };
    train_set set = { .alloc = alloc }, val = { .alloc = alloc };
    train_model *tm = NULL;
    test_tmp(model, s->model);
    train_data_options d = { .tp = tok_template_find("paper"), .max_length = 96, .gists = 3 };
    gist_status st = tok_open(model, alloc, &t, err);
    int rows = 0;
    if (st == GIST_OK && s->add_gist) {
        s->o.pack.gist_token = tiny_vocab(&s->tiny);
        st = tok_add_gist(t, s->o.pack.gist_token, err);
    }
    if (st == GIST_OK) st = train_data_parse(&set, s->rows, strlen(s->rows), "data", t, &d, alloc, err);
    if (st == GIST_OK) st = train_data_parse(&val, other_data, strlen(other_data), "val", t, &d, alloc, err);
    train_split split = { "val", &val };
    s->o.split = &split;
    s->o.splits = s->valid;
    s->o.out = out;
    s->o.origin = (train_origin){ .tokenizer = model,
                                  .gist_added = s->add_gist ? s->o.pack.gist_token : -1,
                                  .bos = TINY_BOS,
                                  .eos = TINY_EOS,
                                  .end = TINY_EOS,
                                  .type = DT_F32 };
    if (st == GIST_OK) st = train_run_plan(&set, &s->o, 0, &s->o.steps, &rows, err);
    if (st == GIST_OK) st = pool_create(alloc, s->threads, &p, err);
    if (st == GIST_OK) st = op_init(&ctx, GIST_KERNELS_AUTO, p, err);
    if (st == GIST_OK) st = llama_config_read(&cfg, alloc, model, err);
    if (st == GIST_OK) st = weights_open(&w, alloc, model, err);
    s->m.max_rows = s->o.max_rows = rows;
    if (st == GIST_OK)
        st = train_model_create(&tm, &cfg, s->scratch ? NULL : &w, s->add_gist, s->o.seed, &s->m, &ctx, alloc, err);
    if (st == GIST_OK && s->poison != 0) {
        train_model_w(tm)[train_model_tensor(tm, 1)->at] = s->poison;
        train_model_repack(tm);
    }
    train_events ev = { .ctx = s, .step = on_step, .evaluated = on_eval, .stop = on_stop };
    if (s->answers) ev.answers = on_answers;
    if (s->generate) ev.answers = on_generate;
    s->tok = t;
    s->ctx = &ctx;
    s->step = 0;
    if (st == GIST_OK) st = train_run(tm, &set, &s->o, &ev, &s->result, err);
    train_model_free(tm);
    weights_close(&w);
    pool_free(p);
    train_data_free(&set);
    train_data_free(&val);
    tok_close(t);
    return st;
}

static char *out_dir(char path[TEST_PATH], const char *name) {
    return test_tmp(path, name);
}

static void run_ok(setup *s, const char *name) {
    char out[TEST_PATH];
    gist_error err = { 0 };
    assert_ok(run_in(s, out_dir(out, name), NULL, &err), &err);
}

static void run_fails(setup *s, const char *name, gist_status code, const char *text) {
    char out[TEST_PATH];
    gist_error err = { 0 };
    assert_fails(run_in(s, out_dir(out, name), NULL, &err), &err, code, text);
}

static char *file_in(char path[TEST_PATH], const char *dir, const char *name) {
    char both[256];
    snprintf(both, sizeof both, "%s/%s", dir, name);
    return test_tmp(path, both);
}

/* metrics.jsonl without its times */
static char *timeless(const char *dir) {
    char path[TEST_PATH];
    size_t len;
    char *text = (char *)test_read(file_in(path, dir, "metrics.jsonl"), &len), *to = text;
    for (const char *at = text; *at;) {
        static const char *const times[] = { ",\"seconds\":", ",\"tokens_per_second\":", ",\"gflops\":" };
        bool cut = false;
        for (int i = 0; i < 3 && !cut; i++) {
            size_t n = strlen(times[i]);
            if (strncmp(at, times[i], n) != 0) continue;
            at += n + strcspn(at + n, ",}");
            cut = true;
        }
        if (!cut) *to++ = *at++;
    }
    *to = '\0';
    return text;
}

static void same_runs(const char *a, const char *b) {
    static const char *const files[] = { "model.safetensors", "config.json", "tokenizer.json",
                                         "best/model.safetensors" };
    char pa[TEST_PATH], pb[TEST_PATH];
    for (int i = 0; i < 4; i++)
        if (!test_same_file(file_in(pa, a, files[i]), file_in(pb, b, files[i])))
            fail_msg("%s differ: %s, %s", files[i], a, b);
    st_file ca, cb;
    assert_ok(st_open(&ca, NULL, file_in(pa, a, "checkpoint.safetensors"), NULL), NULL);
    assert_ok(st_open(&cb, NULL, file_in(pb, b, "checkpoint.safetensors"), NULL), NULL);
    assert_int_equal(ca.count, cb.count);
    for (size_t i = 0; i < ca.count; i++) {
        assert_string_equal(ca.tensors[i].name, cb.tensors[i].name);
        assert_memory_equal(ca.tensors[i].data, cb.tensors[i].data, ca.tensors[i].bytes);
    }
    st_close(&ca);
    st_close(&cb);
    char *ma = timeless(a), *mb = timeless(b);
    assert_string_equal(ma, mb);
    free(ma);
    free(mb);
}

/* ---- learning ---- */

typedef struct said {
    char text[64];
    size_t len;
} said;

static bool on_token(void *ctx, const gist_token_event *ev) {
    said *s = ctx;
    assert_true(s->len + ev->text_len < sizeof s->text);
    memcpy(s->text + s->len, ev->text, ev->text_len);
    s->len += ev->text_len;
    return true;
}

static void the_reference_run(void **state) {
    (void)state;
    setup s = make_setup();
    char path[TEST_PATH];
    tiny_save(&s.tiny, s.model, path);
    run_ok(&s, "whole");
    assert_int_equal(s.result.at.step, 12);
    assert_false(s.result.stopped);
    assert_int_equal(s.evaluations, 4); /* before, 4, 8, 12 */
    assert_true(s.best_seen >= 1);
    static const char *const made[] = { "config.json",
                                        "model.safetensors",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "generation_config.json",
                                        "checkpoint.safetensors",
                                        "metrics.jsonl",
                                        "curve.svg",
                                        "best/config.json",
                                        "best/tokenizer.json" };
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) assert_true(path_exists(file_in(path, "whole", made[i])));
    size_t len;
    char *svg = (char *)test_read(file_in(path, "whole", "curve.svg"), &len);
    assert_non_null(strstr(svg, "<polyline"));
    assert_non_null(strstr(svg, "val/gist.k3"));
    assert_non_null(strstr(svg, "</svg>"));
    free(svg);
}

/* A gist made by the trained model carries the prompt: the same input is answered as either prompt says. */
static void trained_gists_work(void **state) {
    (void)state;
    setup s = make_setup();
    char path[TEST_PATH];
    s.tiny.gist = false; /* a vocabulary without <GIST> */
    s.tiny.C = 32;
    s.tiny.F = 64;
    s.tiny.D = 8;
    s.model = "nogist";
    s.add_gist = s.scratch = true;
    s.valid = false;
    s.rows =
        ROW("say yes", "one", "yes") ROW("say no", "one", "no") ROW("say yes", "two", "yes") ROW("say no", "two", "no");
    s.o.pack.mix[COND_GIST] = 1;
    s.o.pack.mix[COND_FULL] = s.o.pack.mix[COND_NONE] = 0;
    s.o.pack.k_count = 1;
    s.o.accumulate = 1;
    s.o.steps = 400;
    s.o.save_every = 0;
    s.o.optimiser.lr = 1e-2f;
    s.o.optimiser.decay = 0;
    tiny_save(&s.tiny, s.model, path);
    run_ok(&s, "learned");
    assert_true(s.first_loss > 1);
    if (!(s.last_loss < 0.05)) fail_msg("the loss fell from %g to %g only", s.first_loss, s.last_loss);

    gist_error err = { 0 };
    gist_engine *e = NULL;
    gist_engine_info info;
    assert_ok(gist_engine_open(test_tmp(path, "learned"), NULL, &e, &err), &err);
    gist_engine_get_info(e, &info);
    assert_false(info.gist_token_added);
    assert_int_equal(info.gist_token, 264);
    static const char *const prompts[] = { "say yes", "say no" }, *const answers[] = { "yes", "no" };
    for (int i = 0; i < 4; i++) {
        gist *g = NULL;
        gist_session *session = NULL;
        gist_answer a;
        said streamed = { { 0 }, 0 };
        gist_compress_options co = GIST_COMPRESS_OPTIONS_INIT;
        gist_generate_options go = GIST_GENERATE_OPTIONS_INIT;
        co.kv = GIST_TYPE_F32;
        go.on_token = on_token;
        go.on_token_ctx = &streamed;
        assert_ok(gist_compress(e, prompts[i % 2], strlen(prompts[i % 2]), &co, &g, &err), &err);
        assert_ok(gist_session_open(e, NULL, &session, &err), &err);
        assert_ok(gist_session_attach(session, g, &err), &err);
        assert_ok(gist_generate(session, i < 2 ? "one" : "two", 3, &go, &a, &err), &err);
        assert_string_equal(a.text, answers[i % 2]); /* " yes" was learned: the space joins it to the template */
        assert_string_equal(streamed.text, answers[i % 2]);
        assert_string_equal(a.finish, "eos");
        gist_answer_free(session, &a);
        gist_session_close(session);
        gist_free(g);
    }
    gist_engine_close(e);
}

/* ---- stopping and resuming ---- */

static void stopped_and_resumed(void **state) {
    (void)state;
    for (int stop = 1; stop <= 12; stop += stop == 1 ? 2 : 3) {
        setup s = make_setup();
        char name[32];
        snprintf(name, sizeof name, "stopped%d", stop);
        s.stop_at = stop;
        run_ok(&s, name);
        assert_true(s.result.stopped);
        assert_int_equal(s.result.at.step, stop);
        s.stop_at = 0;
        s.threads = 2; /* nor do threads matter */
        s.o.resume = true;
        run_ok(&s, name);
        assert_false(s.result.stopped);
        same_runs("whole", name);
    }
    setup s = make_setup(); /* a finished run: nothing to do, nothing changes */
    s.o.resume = true;
    run_ok(&s, "stopped1");
    assert_int_equal(s.step, 0);
    same_runs("whole", "stopped1");
}

/* Nor does it matter what else goes on: bf16 products, answers generated with the model at each validation. */
static void interrupted_variants(void **state) {
    (void)state;
    for (int v = 0; v < 2; v++) {
        const char *const names[][2] = { { "bf16", "bf16-stopped" }, { "generated", "generated-stopped" } };
        for (int stop = 0; stop <= 5; stop += 5) { /* 5: between checkpoints and validations */
            setup s = make_setup();
            if (v == 0) s.m.type = DT_BF16;
            if (v == 1) s.generate = true;
            s.stop_at = stop;
            s.threads = stop ? 2 : 1;
            run_ok(&s, names[v][stop > 0]);
            if (!stop) continue;
            assert_int_equal(s.result.at.step, stop);
            s.stop_at = 0;
            s.threads = 1;
            s.o.resume = true;
            run_ok(&s, names[v][1]);
            assert_int_equal(s.result.at.step, 12);
        }
        same_runs(names[v][0], names[v][1]);
    }
    char path[TEST_PATH], other[TEST_PATH]; /* looking does not touch; bf16 is another computation */
    assert_true(
        test_same_file(file_in(path, "whole", "model.safetensors"), file_in(other, "generated", "model.safetensors")));
    assert_false(
        test_same_file(file_in(path, "whole", "model.safetensors"), file_in(other, "bf16", "model.safetensors")));
}

/* Killed again and again, at any moment. */
static void killed(void **state) {
    (void)state;
    uint64_t seed = 99;
    char out[TEST_PATH];
    int kills = 0;
    out_dir(out, "killed");
    for (int round = 0; round < 60; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            setup s = make_setup();
            gist_error err = { 0 };
            s.o.resume = true;
            _exit(run_in(&s, out, NULL, &err) == GIST_OK ? 0 : 9);
        }
        usleep((useconds_t)(test_rand(&seed) % 60000));
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) assert_int_equal(WEXITSTATUS(status), 0);
        kills += WIFSIGNALED(status);
    }
    assert_true(kills > 0);
    setup s = make_setup();
    s.o.resume = true;
    run_ok(&s, "killed");
    same_runs("whole", "killed");
}

/* ---- refusing ---- */

static void another_run(void **state) {
    (void)state;
    setup s = make_setup();
    run_fails(&s, "whole", GIST_ERR_USAGE, "holds a run already");
    char pa[TEST_PATH], pb[TEST_PATH];
    static const char *const texts[] = { "lr was 0.003",
                                         "seed was 5",
                                         "data was",
                                         "steps was 12",
                                         NULL,
                                         "k was 1,3",
                                         "best by was the first metric, now it is val/full" };
    for (int i = 0; i < 7; i++) {
        s = make_setup();
        s.o.resume = true;
        if (i == 0) s.o.optimiser.lr = 1e-3f;
        if (i == 1) s.o.seed = 6;
        if (i == 2) s.rows = other_data;
        if (i == 3) s.o.steps = 13;
        if (i == 4) {
            s.tiny.tied = true;
            s.model = "tied";
            tiny_save(&s.tiny, s.model, pa);
        }
        if (i == 5) s.o.pack.k[1] = 2;
        if (i == 6) s.o.best = "val/full";
        if (i == 4)
            run_fails(&s, "whole", GIST_ERR_MISMATCH, "tensors, this model needs");
        else
            run_fails(&s, "whole", GIST_ERR_MISMATCH, texts[i]);
    }
    s = make_setup(); /* a directory with somebody's model */
    run_fails(&s, "base", GIST_ERR_USAGE, "holds a model already");
    assert_true(path_exists(file_in(pb, "base", "model.safetensors")));
}

static void damaged_checkpoints(void **state) {
    (void)state;
    char from[TEST_PATH], to[TEST_PATH], dir[TEST_PATH];
    size_t len;
    uint8_t *bytes = test_read(file_in(from, "whole", "checkpoint.safetensors"), &len);
    assert_int_equal(mkdir(test_tmp(dir, "damaged"), 0777), 0);
    file_in(to, "damaged", "checkpoint.safetensors");
    setup s = make_setup();
    s.o.resume = true;
    uint64_t seed = 3;
    for (int i = 0; i < 20; i++) {
        size_t at = len / 2 + (size_t)(test_rand(&seed) % (len / 2));
        bytes[at] ^= 0x40;
        test_write(to, bytes, len);
        bytes[at] ^= 0x40;
        run_fails(&s, "damaged", GIST_ERR_FORMAT, "is damaged");
    }
    for (size_t n = 0; n < len; n += len / 9 + 1) {
        test_write(to, bytes, n);
        run_fails(&s, "damaged", GIST_ERR_FORMAT, NULL);
    }
    test_write(to, bytes, len);
    run_ok(&s, "damaged");
    free(bytes);
}

static void not_finite(void **state) {
    (void)state;
    setup s = make_setup();
    s.valid = false;
    s.poison = NAN;
    run_fails(&s, "poisoned", GIST_ERR_LIMIT, "step 1: the loss is not finite, batch 1 of 2 (epoch 0, groups 0 to ");
    char path[TEST_PATH];
    assert_false(path_exists(file_in(path, "poisoned", "checkpoint.safetensors")));
    assert_false(path_exists(file_in(path, "poisoned", "model.safetensors")));
}

static void no_room_and_no_right(void **state) {
    (void)state;
    setup s = make_setup();
    char path[TEST_PATH];
    gist_error err = { 0 };
    assert_fails(run_in(&s, "/proc/nowhere", NULL, &err), &err, GIST_ERR_IO, "/proc/nowhere");
    err = (gist_error){ 0 };
    assert_fails(run_in(&s, test_tmp(path, "no/parent"), NULL, &err), &err, GIST_ERR_IO, "no/parent");

    /* A write that fails half way: an error, and the checkpoint before it still good. */
    s = make_setup();
    s.stop_at = 3;
    run_ok(&s, "limited");
    struct rlimit old, low = { 20000, RLIM_INFINITY };
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low.rlim_max = old.rlim_max;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    s.stop_at = 0;
    s.o.resume = true;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    err = (gist_error){ 0 };
    gist_status st = run_in(&s, test_tmp(path, "limited"), NULL, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(st, GIST_ERR_IO);
    assert_non_null(strstr(err.msg, "cannot write"));
    run_ok(&s, "limited");
    same_runs("whole", "limited");

    s = make_setup();
    s.o.best = "val/rouge";
    run_fails(&s, "nometric", GIST_ERR_USAGE, "there are: val/gist.k1, val/gist.k3, val/full, val/none");
    s = make_setup();
    s.o.pack.batch_tokens = 10;
    run_fails(&s, "small", GIST_ERR_LIMIT, "a batch holds 10");
}

static gist_status run_with(void *ctx, const gist_allocator *alloc) {
    static int n;
    char name[32], out[TEST_PATH];
    setup s = *(setup *)ctx;
    snprintf(name, sizeof name, "alloc%d", n++);
    return run_in(&s, test_tmp(out, name), alloc, NULL);
}

static void every_allocation(void **state) {
    (void)state;
    setup s = make_setup();
    s.o.steps = 1;
    s.o.accumulate = 1;
    s.tiny.L = 1;
    s.tiny.C = s.tiny.F = 8;
    s.model = "small";
    char path[TEST_PATH];
    tiny_save(&s.tiny, s.model, path);
    assert_true(test_each_alloc(run_with, &s) > 60);
}

/* ---- scores ---- */

/* A metric of generated answers, larger is better, chooses the best model. */
static void answers_choose(void **state) {
    (void)state;
    setup s = make_setup();
    char path[TEST_PATH];
    tiny_save(&s.tiny, s.model, path);
    s.answers = true;
    s.o.best = "val/score.gist";
    run_ok(&s, "answers");
    assert_int_equal(s.answered, 4);
    assert_int_equal(s.best_seen, 1);
    assert_int_equal(s.result.at.best_step, 4);
    char *log = timeless("answers");
    assert_non_null(strstr(log, ",\"scores\":{\"val/score.gist\":0.2}}\n"));
    free(log);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_choose),       cmocka_unit_test(the_reference_run),
        cmocka_unit_test(trained_gists_work),   cmocka_unit_test(stopped_and_resumed),
        cmocka_unit_test(interrupted_variants), cmocka_unit_test(killed),
        cmocka_unit_test(another_run),          cmocka_unit_test(damaged_checkpoints),
        cmocka_unit_test(not_finite),           cmocka_unit_test(no_room_and_no_right),
        cmocka_unit_test(every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
