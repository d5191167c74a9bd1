/* test_pool.c - the thread pool: every task once, whatever the number of threads, rounds and callers.  Also the part of
 * the tests that matters most under VARIANT=tsan. */
#include "testing.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"

enum { MOST_TASKS = 1000, MOST_THREADS = 8 };

typedef struct round_log {
    int size; /* of the pool */
    atomic_int ran[MOST_TASKS];
    atomic_int bad_workers;
    double result[MOST_TASKS];
    int by[MOST_THREADS]; /* tasks per worker, unguarded: a worker index is never used by two at once */
} round_log;

static void log_task(void *ctx, int task, int worker) {
    round_log *r = ctx;
    if (worker < 0 || worker >= r->size) {
        atomic_fetch_add(&r->bad_workers, 1);
        return;
    }
    r->by[worker]++;
    atomic_fetch_add(&r->ran[task], 1);
    double x = task + 1;
    for (int i = 0; i < 50; i++) x = x * 0.75 + 1.0 / (x + task);
    r->result[task] = x;
}

static pool *make_pool(int threads) {
    pool *p = NULL;
    gist_error err = { 0 };
    assert_ok(pool_create(NULL, threads, &p, &err), &err);
    assert_int_equal(pool_size(p), threads);
    return p;
}

static void every_task_runs_once(void **state) {
    (void)state;
    static const int counts[] = { 0, 1, 2, 3, 7, 8, 9, 100, MOST_TASKS };
    round_log *first = calloc(1, sizeof *first), *r = malloc(sizeof *r);
    assert_true(first && r);
    for (int i = 0; i < MOST_TASKS; i++) {
        first->size = 1;
        log_task(first, i, 0);
    }
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        pool *p = make_pool(threads);
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            int n = counts[c], sum = 0;
            memset(r, 0, sizeof *r);
            r->size = threads;
            pool_run(p, log_task, r, n);
            assert_int_equal(r->bad_workers, 0);
            for (int i = 0; i < MOST_TASKS; i++) assert_int_equal(r->ran[i], i < n);
            for (int w = 0; w < MOST_THREADS; w++) sum += r->by[w];
            assert_int_equal(sum, n);
            assert_memory_equal(r->result, first->result, (size_t)n * sizeof(double)); /* bit for bit */
        }
        pool_free(p);
    }
    free(first);
    free(r);
}

static void add_task_number(void *ctx, int task, int worker) {
    (void)worker;
    atomic_fetch_add((atomic_long *)ctx, task + 1);
}

static void short_rounds_follow_each_other(void **state) {
    (void)state;
    for (int threads = 1; threads <= MOST_THREADS; threads *= 2) {
        pool *p = make_pool(threads);
        atomic_long sum = 0;
        long want = 0;
        for (int i = 0; i < 1200 / threads; i++) {
            int n = i % 9;
            pool_run(p, add_task_number, &sum, n);
            want += n * (n + 1) / 2;
            assert_int_equal(sum, want); /* nothing of a round is left when pool_run returns */
        }
        pool_free(p);
    }
}

static void sleeping_workers_wake(void **state) {
    (void)state;
    pool *p = make_pool(4);
    atomic_long sum = 0;
    for (int i = 0; i < 20; i++) {
        usleep(i < 10 ? 20000 : (unsigned)i * 300); /* long enough to fall asleep; later about as long as they spin */
        pool_run(p, add_task_number, &sum, 16);
    }
    assert_int_equal(sum, 20 * 136);
    usleep(20000);
    pool_free(p); /* and they wake to leave */
}

static void a_pool_may_go_at_once(void **state) {
    (void)state;
    for (int i = 0; i < 100; i++) pool_free(make_pool(1 + i % MOST_THREADS));
    pool_free(NULL);
}

typedef struct caller {
    pool *p;
    long sum;
} caller;

static void *call_many(void *arg) {
    caller *c = arg;
    for (int i = 0; i < 100; i++) {
        atomic_long sum = 0;
        pool_run(c->p, add_task_number, &sum, 10);
        c->sum += sum;
    }
    return NULL;
}

static void several_callers_take_turns(void **state) {
    (void)state;
    enum { CALLERS = 4 };
    pool *p = make_pool(3);
    caller c[CALLERS];
    pthread_t t[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        c[i] = (caller){ p, 0 };
        assert_int_equal(pthread_create(&t[i], NULL, call_many, &c[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(c[i].sum, 100 * 55);
    }
    pool_free(p);
}

typedef struct slow_round {
    atomic_int begun;
    int done[4]; /* plain: pool_run has ordered it when it returns */
} slow_round;

/* All tasks are under way before the caller's own ends; the others take much longer. */
static void slow_task(void *ctx, int task, int worker) {
    slow_round *s = ctx;
    atomic_fetch_add(&s->begun, 1);
    double until = time_now() + 5;
    while (atomic_load(&s->begun) < 4 && time_now() < until) usleep(100);
    if (worker != 0) usleep(1000u * (unsigned)(5 + 5 * task));
    s->done[task] = 1;
}

static void a_round_ends_when_its_slowest_task_ends(void **state) {
    (void)state;
    pool *p = make_pool(4);
    for (int i = 0; i < 10; i++) {
        slow_round s = { 0 };
        pool_run(p, slow_task, &s, 4);
        assert_int_equal(s.begun, 4);
        for (int k = 0; k < 4; k++) assert_int_equal(s.done[k], 1);
    }
    pool_free(p);
}

static void write_shared(void *ctx, int task, int worker) {
    (void)worker;
    ((int *)ctx)[task] += task; /* plain memory: rounds must order it for the caller and for the next round's worker */
}

static void rounds_order_plain_memory(void **state) {
    (void)state;
    pool *p = make_pool(4);
    int cells[64] = { 0 };
    for (int i = 1; i <= 100; i++) {
        pool_run(p, write_shared, cells, 64);
        for (int k = 0; k < 64; k++) assert_int_equal(cells[k], k * i);
    }
    pool_free(p);
}

static void threads_out_of_range_are_refused(void **state) {
    (void)state;
    static const int wrong[] = { -1, 100000, INT32_MIN, INT32_MAX };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        pool *p = NULL;
        gist_error err = { 0 };
        assert_fails(pool_create(NULL, wrong[i], &p, &err), &err, GIST_ERR_USAGE, "threads");
        assert_null(p);
    }
    assert_true(pool_cores() >= 1);
    pool *p = NULL;
    gist_error err = { 0 };
    assert_ok(pool_create(NULL, 0, &p, &err), &err);
    assert_int_equal(pool_size(p), pool_cores());
    pool_free(p);
}

static gist_status use_pool(void *ctx, const gist_allocator *alloc) {
    (void)ctx;
    pool *p = NULL;
    gist_error err = { 0 };
    TRY(pool_create(alloc, 4, &p, &err));
    atomic_long sum = 0;
    pool_run(p, add_task_number, &sum, 100);
    pool_free(p);
    return sum == 5050 ? GIST_OK : GIST_ERR_USAGE;
}

static void creation_survives_every_failed_allocation(void **state) {
    (void)state;
    assert_true(test_each_alloc(use_pool, NULL) >= 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),
        cmocka_unit_test(short_rounds_follow_each_other),
        cmocka_unit_test(sleeping_workers_wake),
        cmocka_unit_test(a_pool_may_go_at_once),
        cmocka_unit_test(several_callers_take_turns),
        cmocka_unit_test(a_round_ends_when_its_slowest_task_ends),
        cmocka_unit_test(rounds_order_plain_memory),
        cmocka_unit_test(threads_out_of_range_are_refused),
        cmocka_unit_test(creation_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
