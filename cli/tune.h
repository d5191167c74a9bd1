/* tune.h - the pairs that `gist tune` learns from: read, answered or drawn by the model itself. */
#ifndef GIST_CLI_TUNE_H
#define GIST_CLI_TUNE_H

#include "cli.h"

/* Rows as train_data_parse reads them: {"instruction": the prompt, "input", "output"}, one a line. */
typedef struct tune_pairs {
    json_t *prompt;  /* a string */
    sbuf rows, held; /* held: the rows that are not trained on */
    int n, n_held;
    int hold_out; /* per cent; every so many rows one is held out */
} tune_pairs;
gist_status tune_pairs_init(tune_pairs *p, const text *prompt, int hold_out, gist_error *err);
void tune_pairs_free(tune_pairs *p);

/* How the model writes. */
typedef struct tune_writing {
    int answers; /* to each input */
    int max_tokens;
    float temperature;
    uint64_t seed;
    bool quiet;
} tune_writing;

/* A JSON Lines file of {input, output}: errors name file and line. */
gist_status tune_read_pairs(tune_pairs *p, const char *path, gist_error *err);
/* Inputs of a file (JSON Lines of {input}, or plain text, one a line), answered by the engine's model behind the whole
 * prompt. */
gist_status tune_answer_inputs(tune_pairs *p, gist_engine *e, const text *prompt, const char *path,
                               const tune_writing *w, gist_error *err);
/* n inputs drawn from the model behind the whole prompt, then answered.  GIST_ERR_UNSUPPORTED when MODEL/config.json
 * does not say that the model was trained with --input-loss. */
gist_status tune_draw_inputs(tune_pairs *p, gist_engine *e, const char *model, const text *prompt, int n,
                             const tune_writing *w, gist_error *err);

#endif
