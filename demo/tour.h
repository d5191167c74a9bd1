/* tour.h - the demonstration model asked three ways: without its prompt, with it, from a gist.
 *
 *   ask.c          answers to a prompt's inputs, by the public interface of the library   ask_*
 *   tour.c         what `make demo` prints                                                tour_*
 *   demo_replay.c  answers that every kernel level must give                              replay_write
 */
#ifndef DEMO_TOUR_H
#define DEMO_TOUR_H

#include "gen.h"
#include "gist.h"

enum { WAY_NONE, WAY_FULL, WAY_GIST, WAY_COUNT };
enum { ASK_TOKENS = 24 /* most tokens of an answer; the longest right one has 20 */ };

/* A prompt as the model sees it. */
typedef struct asked {
    gist_engine *e;
    const prompt *p;
    gist *g;
    gist_session *full; /* holds the whole prompt */
    int tokens, k;      /* of the prompt in its template; gist tokens */
    char said[WAY_COUNT][PROMPT_MAX_PAIRS + PROMPT_MAX_SEEN][TEXT_MAX];
} asked;

/* Compress, and run the prompt.  k 0: the largest of 1, 2, 4, 8, 16 that compresses tenfold (1 if none does). */
gist_status ask_open(asked *a, gist_engine *e, const prompt *p, int k, gist_error *err);
void ask_close(asked *a);
/* Put another gist in its place (owned by a from here on). */
void ask_use(asked *a, gist *g);
/* Answer the first n pairs, every way, in one batch. */
gist_status ask_all(asked *a, int n, gist_error *err);
bool ask_right(const asked *a, int way, int i);
/* Medians over the first n pairs of the milliseconds to the first token: without cache (prompt and input are run), from
 * a cache of the whole prompt, from the gist as it lies on disk at path (read, verified, attached). */
typedef struct ask_times {
    double uncached, cached, from_gist;
} ask_times;
gist_status ask_time(const asked *a, int n, const char *path, ask_times *out, gist_error *err);

typedef struct tour_options {
    const char *model, *dir; /* dir: for the files written; exists */
    uint64_t seed;
    int prompts;
} tour_options;
gist_status tour_show(const words *w, const tour_options *o, gist_error *err);
/* What tuning did for prompt `index`: inputs that it did not see, before and after. */
gist_status tour_tuned(const words *w, const tour_options *o, int index, int k, const char *tuned, gist_error *err);

/* Rows {instruction, input, k, answer}: answers from gists of unseen prompts that every kernel level must give. */
gist_status replay_write(const words *w, const char *model, uint64_t seed, int rows, const char *path, gist_error *err);

#endif
