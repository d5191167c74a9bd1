/* eval_files.c - what gist eval leaves in --out: predictions, results.json, results.md, results.html, and each split's
 * curve of retention as CSV and as a picture. */
#include <stdlib.h>
#include <unistd.h>

#include "eval_job.h"

/* ---- the journal ---- */

static const char journal_name[] = "answers.jsonl";

gist_status eval_open_journal(job *j) {
    if (!j->a->out) return GIST_OK;
    char *path = path_join(NULL, j->a->out, journal_name);
    if (!path) return err_memory(j->err, journal_name);
    gist_status status = eval_journal_open(path, mem_default(), &j->journal, j->err);
    int n = status == GIST_OK ? eval_journal_count(j->journal) : 0;
    if (n > 0 && !j->a->resume)
        status = err_set(j->err, GIST_ERR_USAGE,
                         "%.200s: %d answers of a run that did not end; --resume goes on with it, or delete the file",
                         path, n);
    if (n > 0 && j->a->resume && !j->a->quiet) warn("%s: %d answers are there already", path, n);
    mem_free(NULL, path);
    return status;
}

void eval_drop_journal(job *j) {
    if (!j->journal) return;
    char *path = path_join(NULL, j->a->out, journal_name);
    if (path) unlink(path);
    mem_free(NULL, path);
}

/* ---- results ---- */

static gist_status write_file(const job *j, const char *name, const sbuf *bytes) {
    out_file out;
    char *path = bytes->failed ? NULL : path_join(NULL, j->a->out, name);
    if (!path) return err_memory(j->err, name);
    gist_status status = out_open(&out, mem_default(), path, j->err);
    if (status == GIST_OK) {
        out_write(&out, bytes->p, bytes->len);
        status = out_commit(&out, j->err);
    }
    mem_free(NULL, path);
    return status;
}

gist_status eval_write_predictions(const job *j, const report_split *s, const report_column *c) {
    char name[160];
    sbuf bytes;
    if (!j->a->out) return GIST_OK;
    sbuf_init(&bytes, NULL);
    report_csv(s, c, &bytes);
    char model[24] = "";
    if (j->model) snprintf(model, sizeof model, ".model%d", j->model + 1);
    snprintf(name, sizeof name, "%s.%s%s.csv", s->rows.name, c->view.name, model);
    gist_status status = write_file(j, name, &bytes);
    sbuf_free(&bytes);
    return status;
}

static gist_status write_curve(const job *j, const report_split *s, sbuf *bytes) {
    char name[160];
    if (s->bins == 0) return GIST_OK;
    bytes->len = 0;
    report_curve_csv(s, bytes);
    snprintf(name, sizeof name, "%s.retention.csv", s->rows.name);
    TRY(write_file(j, name, bytes));
    bytes->len = 0;
    if (!report_retention_chart(s, j->r.ratio, true, bytes)) return GIST_OK;
    snprintf(name, sizeof name, "%s.retention.svg", s->rows.name);
    return write_file(j, name, bytes);
}

static gist_status write_json(const job *j, sbuf *bytes) {
    json_t *root = report_json(&j->r);
    char *dumped = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (!dumped) return err_memory(j->err, "results.json");
    bytes->len = 0;
    sbuf_str(bytes, dumped);
    sbuf_str(bytes, "\n");
    free(dumped);
    return write_file(j, "results.json", bytes);
}

gist_status eval_write_results(const job *j) {
    sbuf bytes;
    if (!j->a->out) return GIST_OK;
    sbuf_init(&bytes, NULL);
    gist_status status = write_json(j, &bytes);
    bytes.len = 0;
    report_markdown(&j->r, &bytes);
    if (status == GIST_OK) status = write_file(j, "results.md", &bytes);
    bytes.len = 0;
    report_page(&j->r, &bytes);
    if (status == GIST_OK) status = write_file(j, "results.html", &bytes);
    for (int i = 0; i < j->r.splits && status == GIST_OK; i++) status = write_curve(j, &j->r.split[i], &bytes);
    sbuf_free(&bytes);
    return status;
}
