/* pool.c - a fork-join thread pool.
 *
 *   pool_run:  publish (fn, ctx, n) -> bump `round` -> everybody takes task numbers from one counter until they run
 *              out -> the caller waits until no worker is inside the round
 *
 * Which worker runs a task is left to chance; what a task computes must depend on its number alone.  Rounds follow each
 * other every few microseconds while a model runs, so idle workers spin for a moment before they sleep.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/base.h"

enum { SPIN = 20000, MAX_THREADS = 256 };

struct pool {
    const gist_allocator *alloc;
    int size;
    pthread_t *threads; /* [size-1] */
    int started;
    pthread_mutex_t caller; /* held during a round */
    pthread_mutex_t lock;   /* guards sleeping */
    pthread_cond_t wake;
    _Atomic unsigned round; /* bumped to start a round */
    _Atomic int quit, asleep;
    _Atomic int next, inside; /* next task; workers that have not left the round */
    pool_fn fn;
    void *ctx;
    int n;
};

typedef struct worker_arg {
    pool *p;
    int id;
} worker_arg;

int pool_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int n = CPU_COUNT(&set);
        if (n > 0) return n < MAX_THREADS ? n : MAX_THREADS;
    }
    return 1;
}

static void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void take_tasks(pool *p, int worker) {
    for (;;) {
        int task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= p->n) return;
        p->fn(p->ctx, task, worker);
    }
}

static void wait_for_round(pool *p, unsigned seen) {
    for (int i = 0; i < SPIN; i++) {
        if (atomic_load_explicit(&p->round, memory_order_acquire) != seen) return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->asleep, 1);
    while (atomic_load(&p->round) == seen) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->asleep, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg) {
    worker_arg w = *(worker_arg *)arg;
    pool *p = w.p;
    mem_free(p->alloc, arg);
    unsigned seen = 0;
    for (;;) {
        wait_for_round(p, seen);
        seen++;
        if (atomic_load(&p->quit)) return NULL;
        take_tasks(p, w.id);
        atomic_fetch_sub_explicit(&p->inside, 1, memory_order_release);
    }
}

static void start_round(pool *p) {
    atomic_fetch_add(&p->round, 1);
    if (atomic_load(&p->asleep)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

void pool_run(pool *p, pool_fn fn, void *ctx, int n) {
    if (n <= 0) return;
    pthread_mutex_lock(&p->caller);
    p->fn = fn;
    p->ctx = ctx;
    p->n = n;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    if (p->started == 0 || n == 1) {
        take_tasks(p, 0);
    } else {
        atomic_store(&p->inside, p->started);
        start_round(p);
        take_tasks(p, 0);
        for (int i = 0; atomic_load_explicit(&p->inside, memory_order_acquire) > 0; i++) {
            if (i < SPIN)
                cpu_relax();
            else
                sched_yield();
        }
    }
    pthread_mutex_unlock(&p->caller);
}

gist_status pool_create(const gist_allocator *alloc, int threads, pool **out, gist_error *err) {
    if (threads == 0) threads = pool_cores();
    if (threads < 1 || threads > MAX_THREADS)
        return err_set(err, GIST_ERR_USAGE, "threads: %d is not between 1 and %d", threads, MAX_THREADS);
    pool *p = mem_calloc(alloc, 1, sizeof *p);
    if (!p) return err_memory(err, "thread pool");
    p->alloc = alloc;
    p->size = threads;
    pthread_mutex_init(&p->caller, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->threads = mem_calloc(alloc, (size_t)threads, sizeof *p->threads);
    if (!p->threads) {
        pool_free(p);
        return err_memory(err, "thread pool");
    }
    for (int i = 1; i < threads; i++) {
        worker_arg *arg = mem_alloc(alloc, 1, sizeof *arg);
        if (!arg) {
            pool_free(p);
            return err_memory(err, "thread pool");
        }
        *arg = (worker_arg){ p, i };
        if (pthread_create(&p->threads[p->started], NULL, worker_main, arg) != 0) {
            mem_free(alloc, arg);
            pool_free(p);
            return err_set(err, GIST_ERR_MEMORY, "the system refused thread %d of %d", i + 1, threads);
        }
        p->started++;
    }
    *out = p;
    return GIST_OK;
}

void pool_free(pool *p) {
    if (!p) return;
    if (p->started) {
        atomic_store(&p->quit, 1);
        start_round(p);
        for (int i = 0; i < p->started; i++) pthread_join(p->threads[i], NULL);
    }
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->caller);
    mem_free(p->alloc, p->threads);
    mem_free(p->alloc, p);
}

int pool_size(const pool *p) {
    return p->size;
}
