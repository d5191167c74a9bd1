/* pool.c - a fork-join thread pool.
 *
 *   ticket   | round | n tasks | next |     one 64-bit counter: adding 1 draws the next task of the round
 *
 *   pool_run:  publish (fn, ctx), set the ticket -> everybody draws tasks until next = n -> the caller waits until all
 * n
 *              are done.  A worker that comes late draws nothing and is not waited for.
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
    _Atomic uint64_t ticket;
    _Atomic int done; /* finished tasks of the round */
    _Atomic int quit, asleep;
    pool_fn fn; /* stable from the ticket being set until the last task is done */
    void *ctx;
};

/* Fields of a ticket.  `next` may run past n by one per worker and look, far from its 24 bits' end. */
enum { TICKET_BITS = 24, TASKS_MAX = 1 << 23 };
static unsigned ticket_next(uint64_t t) {
    return (unsigned)(t & ((1u << TICKET_BITS) - 1));
}
static unsigned ticket_tasks(uint64_t t) {
    return (unsigned)(t >> TICKET_BITS & ((1u << TICKET_BITS) - 1));
}

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

static bool has_work(pool *p) {
    uint64_t t = atomic_load_explicit(&p->ticket, memory_order_acquire);
    return ticket_next(t) < ticket_tasks(t);
}

/* A drawn task keeps fn and ctx in place until it is counted as done. */
static void take_tasks(pool *p, int worker) {
    while (has_work(p)) {
        uint64_t t = atomic_fetch_add_explicit(&p->ticket, 1, memory_order_acquire);
        if (ticket_next(t) >= ticket_tasks(t)) return;
        p->fn(p->ctx, (int)ticket_next(t), worker);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
    }
}

static void wait_for_work(pool *p) {
    for (int i = 0; i < SPIN; i++) {
        if (has_work(p) || atomic_load(&p->quit)) return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->asleep, 1);
    while (!has_work(p) && !atomic_load(&p->quit)) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->asleep, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg) {
    worker_arg w = *(worker_arg *)arg;
    mem_free(w.p->alloc, arg);
    for (;;) {
        wait_for_work(w.p);
        if (atomic_load(&w.p->quit)) return NULL;
        take_tasks(w.p, w.id);
    }
}

static void wake_workers(pool *p) {
    if (!atomic_load(&p->asleep)) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

/* n <= TASKS_MAX tasks. */
static void run_round(pool *p, pool_fn fn, void *ctx, int n) {
    p->fn = fn;
    p->ctx = ctx;
    atomic_store(&p->done, 0);
    uint64_t round = (atomic_load(&p->ticket) >> (2 * TICKET_BITS)) + 1;
    atomic_store(&p->ticket, round << (2 * TICKET_BITS) | (uint64_t)n << TICKET_BITS);
    wake_workers(p);
    take_tasks(p, 0);
    for (int i = 0; atomic_load_explicit(&p->done, memory_order_acquire) < n; i++) {
        if (i < SPIN)
            cpu_relax();
        else
            sched_yield();
    }
}

typedef struct piece {
    pool_fn fn;
    void *ctx;
    int first;
} piece;

static void run_piece(void *arg, int task, int worker) {
    const piece *q = arg;
    q->fn(q->ctx, q->first + task, worker);
}

void pool_run(pool *p, pool_fn fn, void *ctx, int n) {
    if (n <= 0) return;
    if (!p) {
        for (int i = 0; i < n; i++) fn(ctx, i, 0);
        return;
    }
    pthread_mutex_lock(&p->caller);
    if (p->started == 0 || n == 1) {
        for (int i = 0; i < n; i++) fn(ctx, i, 0);
    } else {
        for (int first = 0; first < n; first += TASKS_MAX) {
            piece q = { fn, ctx, first };
            run_round(p, run_piece, &q, n - first < TASKS_MAX ? n - first : TASKS_MAX);
            if (n - first <= TASKS_MAX) break;
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
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->quit, 1);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
        for (int i = 0; i < p->started; i++) pthread_join(p->threads[i], NULL);
    }
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->caller);
    mem_free(p->alloc, p->threads);
    mem_free(p->alloc, p);
}

int pool_size(const pool *p) {
    return p ? p->size : 1;
}
