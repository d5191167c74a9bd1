/* random.c - random numbers, hashes, the clock.
 *
 * xoshiro256++ (Blackman, Vigna) seeded by splitmix64: state is four words that checkpoints can store.
 * Hashes are XXH3-128 in canonical (big-endian) form; fields are length-prefixed so that they do not run together:
 *   hash_add: 8-byte little-endian length, then the bytes.   hash_str(NULL): the length field 2^64-1 alone.
 *   hash_u64: 8 bytes, little-endian, no prefix.
 */
#include <math.h>
#include <time.h>
#include <xxhash.h>

#include "base/base.h"

static uint64_t rotl(uint64_t x, int k) {
    return x << k | x >> (64 - k);
}

void rng_seed(rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        r->s[i] = z ^ z >> 31;
    }
}

uint64_t rng_next(rng *r) {
    uint64_t *s = r->s, result = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double rng_unit(rng *r) {
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

uint64_t rng_below(rng *r, uint64_t n) {
    uint64_t reject = -n % n, v; /* 2^64 mod n: values below it would be too frequent */
    do v = rng_next(r);
    while (v < reject);
    return v % n;
}

double rng_normal(rng *r) {
    double u = 1.0 - rng_unit(r), v = rng_unit(r); /* u in (0,1] */
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

struct hasher {
    const gist_allocator *alloc;
    XXH3_state_t *x; /* the library's own allocation */
};

hasher *hash_begin(const gist_allocator *alloc) {
    hasher *h = mem_alloc(alloc, 1, sizeof *h);
    if (!h) return NULL;
    *h = (hasher){ alloc, XXH3_createState() };
    if (!h->x) {
        mem_free(alloc, h);
        return NULL;
    }
    XXH3_128bits_reset(h->x);
    return h;
}

void hash_u64(hasher *h, uint64_t v) {
    uint8_t b[8];
    for (int i = 0; i < 8; i++) b[i] = (uint8_t)(v >> (8 * i));
    XXH3_128bits_update(h->x, b, 8);
}

void hash_add(hasher *h, const void *bytes, size_t len) {
    hash_u64(h, len);
    if (len) XXH3_128bits_update(h->x, bytes, len);
}

void hash_str(hasher *h, const char *s) {
    if (s)
        hash_add(h, s, strlen(s));
    else
        hash_u64(h, UINT64_MAX);
}

static hash128 canonical(XXH128_hash_t v) {
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, v);
    hash128 out;
    memcpy(out.b, c.digest, 16);
    return out;
}

hash128 hash_end(hasher *h) {
    hash128 out = canonical(XXH3_128bits_digest(h->x));
    hash_abort(h);
    return out;
}

void hash_abort(hasher *h) {
    if (!h) return;
    XXH3_freeState(h->x);
    mem_free(h->alloc, h);
}

hash128 hash_bytes(const void *bytes, size_t len) {
    return canonical(XXH3_128bits(bytes, len));
}

void hash_hex(hash128 h, char out[33]) {
    static const char digit[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        out[2 * i] = digit[h.b[i] >> 4];
        out[2 * i + 1] = digit[h.b[i] & 15];
    }
    out[32] = '\0';
}

double time_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
