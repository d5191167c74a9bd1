/* test_torchbin.c - files of torch.save: what PyTorch wrote is read as it is, everything else is refused by name.
 *
 * Fixtures: tools/make_torchbin_fixtures.py (torch 2.15.0).  The hostile archives and pickles are made here.
 */
#include "testing.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "format/format_int.h"

/* ---- what PyTorch wrote ---- */

static weights open_dir(const char *fixture) {
    char path[TEST_PATH];
    weights w;
    gist_error err = { 0 };
    assert_ok(weights_open(&w, NULL, test_fixture(path, fixture), &err), &err);
    return w;
}

static void same_as_safetensors(void **state) {
    (void)state;
    weights st = open_dir("format/single"), one = open_dir("torchbin/single"), two = open_dir("torchbin/sharded");
    hash128 a, b, c;
    gist_error err = { 0 };
    assert_int_equal(one.bin_count, 1);
    assert_int_equal(two.bin_count, 2);
    assert_int_equal(weights_count(&one), weights_count(&st));
    assert_ok(weights_hash(&st, NULL, &a, &err), &err);
    assert_ok(weights_hash(&one, NULL, &b, &err), &err);
    assert_ok(weights_hash(&two, NULL, &c, &err), &err);
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_equal(&a, &c, sizeof a);
    const tensor_view *t = weights_at(&two, 0);
    const file_map *m = weights_map(&two, t);
    assert_true((const uint8_t *)t->data >= m->data && (const uint8_t *)t->data + t->bytes <= m->data + m->size);
    assert_true(pt_holds(&one.bins[0], "f.rotary_emb.inv_freq")); /* float64: skipped */
    assert_null(pt_find(&one.bins[0], "f.rotary_emb.inv_freq"));
    assert_true(pt_holds(&one.bins[0], "g.position_ids"));
    assert_false(pt_holds(&one.bins[0], "absent"));
    weights_close(&st);
    weights_close(&one);
    weights_close(&two);
}

static void tied_names_share_bytes(void **state) {
    (void)state;
    weights w = open_dir("torchbin/t5");
    const tensor_view *a = weights_find(&w, "shared.weight");
    assert_int_equal(a->shape[0], 33);
    assert_ptr_equal(a->data, weights_find(&w, "encoder.embed_tokens.weight")->data);
    assert_ptr_equal(a->data, weights_find(&w, "decoder.embed_tokens.weight")->data);
    weights_close(&w);
}

static void expect(const pt_file *f, const char *name, const float *want, size_t n) {
    const tensor_view *t = pt_find(f, name);
    float got[32];
    assert_non_null(t);
    assert_int_equal(tensor_count(t), n);
    dt_to_f32(got, t->data, t->type, n);
    assert_same_floats(got, want, n, name);
}

/* Element (r, c) of the matrix [4,6] behind all tensors of layouts.bin. */
static float at(int r, int c) {
    return (float)(r * 6 + c) / 8 - 1;
}

static void check_layouts(const pt_file *f) {
    float x[24], transposed[24], columns[12], permuted[24];
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 6; c++) {
            x[r * 6 + c] = at(r, c);
            transposed[c * 4 + r] = at(r, c);
            if (c >= 2 && c < 5) columns[r * 3 + c - 2] = at(r, c);
            permuted[c * 4 + r] = at(r, c); /* [2,2,6] as [6,2,2] */
        }
    assert_int_equal(f->count, 9);
    expect(f, "weight", x, 24);
    expect(f, "rows", x + 6, 12);
    expect(f, "transposed", transposed, 24);
    expect(f, "columns", columns, 12);
    expect(f, "permuted", permuted, 24);
    expect(f, "one", x + 15, 1);
    expect(f, "long", (float[]){ 0, 9984, 19968, 29952 }, 4); /* bf16 of 10000, 20000, 30000 */
    expect(f, "empty", NULL, 0);
    const tensor_view *w = pt_find(f, "weight"), *t = pt_find(f, "transposed"), *p = pt_find(f, "permuted");
    assert_int_equal(t->shape[0], 6);
    assert_int_equal(p->dims, 3);
    assert_int_equal(p->shape[0] * 100 + p->shape[1] * 10 + p->shape[2], 622);
    assert_ptr_equal(pt_find(f, "tied")->data, w->data);
    assert_ptr_equal(pt_find(f, "rows")->data, (const float *)w->data + 6);
    assert_int_equal(f->copy_count, 3);
}

static void strides_and_shared_storages(void **state) {
    (void)state;
    static const char *const files[] = { "torchbin/layouts.bin", "torchbin/zip64.bin" };
    for (size_t i = 0; i < 2; i++) {
        char path[TEST_PATH];
        pt_file f;
        gist_error err = { 0 };
        assert_ok(pt_open(&f, NULL, test_fixture(path, files[i]), &err), &err);
        check_layouts(&f);
        for (size_t k = 0; k < f.count; k++) map_forget(&f.map, f.tensors[k].data, f.tensors[k].bytes);
        check_layouts(&f); /* copies are not the map's to forget */
        pt_close(&f);
    }
}

static void refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *file, *message;
    } bad[] = {
        { "deflated.bin", "data.pkl\" is compressed (method 8, deflate)" },
        { "old.bin", "PyTorch's layout before version 1.6" },
        { "protocol4.bin", "a pickle of protocol 4" },
        { "parameter.bin", "imports torch._utils._rebuild_parameter, which is refused" },
        { "call.bin", "imports posix.system, which is refused" },
        { "nested.bin", "\"model\" is no tensor" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char path[TEST_PATH], name[64];
        pt_file f, before;
        memset(&f, 0x5a, sizeof f);
        before = f;
        gist_error err = { 0 };
        snprintf(name, sizeof name, "torchbin/%s", bad[i].file);
        assert_fails(pt_open(&f, NULL, test_fixture(path, name), &err), &err, GIST_ERR_UNSUPPORTED, bad[i].message);
        assert_memory_equal(&f, &before, sizeof f);
    }
}

/* ---- pickles ---- */

typedef struct bytes {
    uint8_t p[4096];
    size_t n;
} bytes;

static void add(bytes *b, const void *p, size_t n) {
    assert_true(b->n + n <= sizeof b->p);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void add_le(bytes *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++) add(b, &(uint8_t){ (uint8_t)(i < 8 ? v >> (8 * i) : 0) }, 1);
}

static void add_text(bytes *b, const char *s) {
    add(b, "X", 1);
    add_le(b, strlen(s), 4);
    add(b, s, strlen(s));
}

static void add_long(bytes *b, int64_t v) {
    add(b, "\x8a\x08", 2);
    add_le(b, (uint64_t)v, 8);
}

typedef struct described {
    const char *name, *type, *key;
    int64_t elements, offset;
    int dims;
    int64_t shape[5], stride[5];
} described;

/* "name", tensor */
static void add_tensor(bytes *b, const described *t) {
    add_text(b, t->name);
    add(b, "ctorch._utils\n_rebuild_tensor_v2\n((", 35);
    add_text(b, "storage");
    add(b, "ctorch\n", 7);
    add(b, t->type, strlen(t->type));
    add(b, "\n", 1);
    add_text(b, t->key);
    add_text(b, "cpu");
    add_long(b, t->elements);
    add(b, "tQ", 2);
    add_long(b, t->offset);
    for (int k = 0; k < 2; k++) {
        add(b, "(", 1);
        for (int d = 0; d < t->dims; d++) add_long(b, k ? t->stride[d] : t->shape[d]);
        add(b, "t", 1);
    }
    add(b, "\x89}tR", 4);
}

static void add_state(bytes *b, const described *t, size_t n) {
    add(b, "\x80\x02}(", 4);
    for (size_t i = 0; i < n; i++) add_tensor(b, &t[i]);
    add(b, "u.", 2);
}

#define P(s) s, sizeof s - 1
static void bad_pickles(void **state) {
    (void)state;
    static const struct {
        const char *p;
        size_t n;
        gist_status code;
        const char *message;
    } bad[] = {
        { P(""), GIST_ERR_FORMAT, "does not begin with its protocol" },
        { P("}."), GIST_ERR_FORMAT, "does not begin with its protocol" },
        { P("\x80\x05}."), GIST_ERR_UNSUPPORTED, "a pickle of protocol 5" },
        { P("\x80\x02"), GIST_ERR_FORMAT, "ends without STOP" },
        { P("\x80\x02}"), GIST_ERR_FORMAT, "ends without STOP" },
        { P("\x80\x02."), GIST_ERR_FORMAT, "not one value is left" },
        { P("\x80\x02}}."), GIST_ERR_FORMAT, "not one value is left" },
        { P("\x80\x02}.."), GIST_ERR_FORMAT, "more bytes follow" },
        { P("\x80\x02N."), GIST_ERR_UNSUPPORTED, "holds no dict" },
        { P("\x80\x02(."), GIST_ERR_UNSUPPORTED, "holds no dict" },
        { P("\x80\x02\x80\x02}."), GIST_ERR_UNSUPPORTED, "opcode 0x80 (PROTO)" },
        { P("\x80\x02q\0."), GIST_ERR_FORMAT, "BINPUT: the stack is too short" },
        { P("\x80\x02}q\1."), GIST_ERR_FORMAT, "BINPUT: a memo index out of order" },
        { P("\x80\x02}q\0q\0."), GIST_ERR_FORMAT, "BINPUT: a memo index out of order" },
        { P("\x80\x02}r\xff\xff\xff\xff."), GIST_ERR_FORMAT, "LONG_BINPUT: a memo index out of order" },
        { P("\x80\x02h\0."), GIST_ERR_FORMAT, "BINGET: a memo index that was never written" },
        { P("\x80\x02}q\0j\0\0\0\1."), GIST_ERR_FORMAT, "LONG_BINGET: a memo index that was never written" },
        { P("\x80\x02(q\0."), GIST_ERR_FORMAT, "a mark where a value should be" },
        { P("\x80\x02t."), GIST_ERR_FORMAT, "TUPLE: no mark on the stack" },
        { P("\x80\x02NNt."), GIST_ERR_FORMAT, "TUPLE: no mark on the stack" },
        { P("\x80\x02\x87."), GIST_ERR_FORMAT, "TUPLE3: the stack is too short" },
        { P("\x80\x02(NN\x87."), GIST_ERR_FORMAT, "TUPLE3: a mark where a value should be" },
        { P("\x80\x02u."), GIST_ERR_FORMAT, "SETITEMS: no mark" },
        { P("\x80\x02(u."), GIST_ERR_FORMAT, "SETITEMS: no pairs behind a dict" },
        { P("\x80\x02}(Nu."), GIST_ERR_FORMAT, "SETITEMS: no pairs behind a dict" },
        { P("\x80\x02N(X\1\0\0\0aNu."), GIST_ERR_FORMAT, "SETITEMS: an item is set of what is no dict" },
        { P("\x80\x02((X\1\0\0\0aNu."), GIST_ERR_FORMAT, "SETITEMS: an item is set of what is no dict" },
        { P("\x80\x02}(NNu."), GIST_ERR_FORMAT, "a key that is no text" },
        { P("\x80\x02}NNs."), GIST_ERR_FORMAT, "SETITEM: a key that is no text" },
        { P("\x80\x02s."), GIST_ERR_FORMAT, "SETITEM: the stack is too short" },
        { P("\x80\x02}X\1\0\0\0aNs."), GIST_ERR_UNSUPPORTED, "\"a\" is no tensor" },
        { P("\x80\x02}Nb."), GIST_ERR_FORMAT, "BUILD: attributes of what is no dict" },
        { P("\x80\x02}b."), GIST_ERR_FORMAT, "BUILD: the stack is too short" },
        { P("\x80\x02X\xff\xff\xff\xffzz."), GIST_ERR_FORMAT, "BINUNICODE: cut off" },
        { P("\x80\x02J\1\2"), GIST_ERR_FORMAT, "BININT: cut off" },
        { P("\x80\x02\x8a\x09zzzzzzzzz."), GIST_ERR_FORMAT, "LONG1: a number of more than 8 bytes" },
        { P("\x80\x02\x8a\x09z"), GIST_ERR_FORMAT, "LONG1: cut off" },
        { P("\x80\x02"
            "cos\nsystem\n."),
          GIST_ERR_UNSUPPORTED, "imports os.system, which is refused" },
        { P("\x80\x02"
            "cbuiltins\neval\n."),
          GIST_ERR_UNSUPPORTED, "imports builtins.eval" },
        { P("\x80\x02"
            "ctorch\nFloatStorag\n."),
          GIST_ERR_UNSUPPORTED, "imports torch.FloatStorag," },
        { P("\x80\x02"
            "ctorch\nFloatStorage.x\n."),
          GIST_ERR_UNSUPPORTED, "imports torch.FloatStorage.x," },
        { P("\x80\x02"
            "ca\x1b[31m\nb\n."),
          GIST_ERR_UNSUPPORTED, "imports a?[31m.b" },
        { P("\x80\x02"
            "cos\nsystem"),
          GIST_ERR_FORMAT, "GLOBAL: a name without an end" },
        { P("\x80\x02"
            "cos"),
          GIST_ERR_FORMAT, "GLOBAL: a name without an end" },
        { P("\x80\x02"
            "ctorch\nFloatStorage\n)R."),
          GIST_ERR_UNSUPPORTED, "calls torch.FloatStorage, which is refused" },
        { P("\x80\x02"
            "ccollections\nOrderedDict\nN\x85R."),
          GIST_ERR_FORMAT, "OrderedDict with arguments" },
        { P("\x80\x02"
            "ccollections\nOrderedDict\nNR."),
          GIST_ERR_FORMAT, "a call of what is no function" },
        { P("\x80\x02N)R."), GIST_ERR_FORMAT, "a call of what is no function" },
        { P("\x80\x02)R."), GIST_ERR_FORMAT, "REDUCE: the stack is too short" },
        { P("\x80\x02"
            "ctorch._utils\n_rebuild_tensor_v2\n)R."),
          GIST_ERR_FORMAT, "arguments than 6" },
        { P("\x80\x02NQ."), GIST_ERR_FORMAT, "BINPERSID: a persistent id that is no tuple of 5" },
        { P("\x80\x02(NNNNNtQ."), GIST_ERR_FORMAT, "BINPERSID: a persistent id that names no storage" },
        { P("\x80\x02(X\7\0\0\0storageccollections\nOrderedDict\nX\1\0\0\0"
            "0X\3\0\0\0cpuK\1tQ."),
          GIST_ERR_FORMAT, "a persistent id that names no storage" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pickle_dict d;
        gist_error err = { 0 };
        assert_fails(pickle_parse(&d, NULL, bad[i].p, bad[i].n, "x", &err), &err, bad[i].code, bad[i].message);
    }
}

/* All opcodes of protocols 0 to 5 that are not needed, and bytes that are none. */
static void refused_opcodes(void **state) {
    (void)state;
    static const char needed[] = "(.JKMNQRXbchjqrstu})\x85\x86\x87\x88\x89\x8a";
    static const struct {
        char op;
        const char *name;
    } some[] = { { 'i', "INST" },
                 { 'o', "OBJ" },
                 { '\x81', "NEWOBJ" },
                 { '\x92', "NEWOBJ_EX" },
                 { 'P', "PERSID" },
                 { '\x93', "STACK_GLOBAL" },
                 { '\x82', "EXT1" },
                 { '0', "POP" },
                 { '2', "DUP" },
                 { 'g', "GET" },
                 { 'p', "PUT" },
                 { ']', "EMPTY_LIST" },
                 { '\xff', "none of pickle's" } };
    int refused = 0;
    for (int op = 0; op < 256; op++) {
        char p[] = "\x80\x02.", text[16];
        pickle_dict d;
        gist_error err = { 0 };
        if (op && strchr(needed, op)) continue;
        p[2] = (char)op;
        snprintf(text, sizeof text, "opcode 0x%02x", (unsigned)op);
        assert_fails(pickle_parse(&d, NULL, p, 3, "x", &err), &err, GIST_ERR_UNSUPPORTED, text);
        for (size_t i = 0; i < sizeof some / sizeof *some; i++)
            if ((uint8_t)some[i].op == op) assert_non_null(strstr(err.msg, some[i].name));
        refused++;
    }
    assert_int_equal(refused, 256 - (int)strlen(needed));
}

static void deep_and_large_pickles(void **state) {
    (void)state;
    enum { DEPTH = 200000 };
    uint8_t *p = malloc(PICKLE_MAX + 1);
    pickle_dict d;
    gist_error err = { 0 };
    size_t n = 0;
    assert_non_null(p);
    memcpy(p, "\x80\x02}}X\0\0\0\0N", 10); /* a dict, and one whose attribute is a tuple in a tuple in a tuple ... */
    memset(p + 10, 0x85, DEPTH);
    n = 10 + DEPTH;
    memcpy(p + n, "sb.", 3);
    assert_ok(pickle_parse(&d, NULL, p, n + 3, "x", &err), &err);
    assert_int_equal(d.count, 0);
    pickle_free(&d);
    memset(p + 2, '(', 1 << 20);
    assert_fails(pickle_parse(&d, NULL, p, 1 << 20, "x", &err), &err, GIST_ERR_FORMAT, "ends without STOP");
    err = (gist_error){ 0 };
    assert_fails(pickle_parse(&d, NULL, p, PICKLE_MAX + 1, "x", &err), &err, GIST_ERR_LIMIT, "at most");
    free(p);
}

/* ---- archives ---- */

typedef struct entry {
    const char *name;
    const void *p;
    size_t n;
} entry;

/* A zip archive of stored entries. */
static void make_zip(bytes *out, const entry *e, size_t n) {
    bytes directory = { .n = 0 };
    for (size_t i = 0; i < n; i++) {
        size_t header = out->n, len = strlen(e[i].name);
        add(out, "PK\3\4\0\0\0\0\0\0", 10);
        add_le(out, 0, 8);
        add_le(out, e[i].n, 4);
        add_le(out, e[i].n, 4);
        add_le(out, len, 4);
        add(out, e[i].name, len);
        add(out, e[i].p, e[i].n);
        add(&directory, "PK\1\2\0\0\0\0\0\0\0\0", 12);
        add_le(&directory, 0, 8);
        add_le(&directory, e[i].n, 4);
        add_le(&directory, e[i].n, 4);
        add_le(&directory, len, 4);
        add_le(&directory, 0, 10);
        add_le(&directory, header, 4);
        add(&directory, e[i].name, len);
    }
    size_t start = out->n;
    add(out, directory.p, directory.n);
    add(out, "PK\5\6\0\0\0\0", 8);
    add_le(out, n, 2);
    add_le(out, n, 2);
    add_le(out, directory.n, 4);
    add_le(out, start, 4);
    add_le(out, 0, 2);
}

static const uint8_t zeros[64];

/* An archive of one state dict over one storage "0" of 16 bytes. */
static void make_file(bytes *out, const described *t, size_t n) {
    static bytes pickle;
    pickle.n = 0;
    add_state(&pickle, t, n);
    make_zip(out, (entry[]){ { "x/data.pkl", pickle.p, pickle.n }, { "x/data/0", zeros, 16 } }, 2);
}

static void refuse(const bytes *b, gist_status code, const char *message) {
    pt_file f;
    gist_error err = { 0 };
    assert_fails(pt_parse(&f, NULL, b->p, b->n, "x", &err), &err, code, message);
}

static const described sound = { "a", "FloatStorage", "0", 4, 0, 2, { 2, 2 }, { 2, 1 } };

static void bad_tensors(void **state) {
    (void)state;
    const int64_t big = INT64_C(1) << 40;
    const struct {
        described t;
        gist_status code;
        const char *message;
    } bad[] = {
        { { "a", "FloatStorage", "1", 4, 0, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "\"a\": no entry data/1" },
        { { "a", "FloatStorage", "../0", 4, 0, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "no entry data/../0" },
        { { "a", "FloatStorage", "0", 5, 0, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "data/0 has 16 bytes, 5 of float32" },
        { { "a", "HalfStorage", "0", 4, 0, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "4 of float16 take another number" },
        { { "a", "FloatStorage", "0", INT64_MAX, 0, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "take another number" },
        { { "a", "FloatStorage", "0", -4, 0, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "names no storage" },
        { { "a", "FloatStorage", "0", 4, 1, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "reaches beyond its storage of 4" },
        { { "a", "FloatStorage", "0", 4, 4, 0, { 0 }, { 0 } }, GIST_ERR_FORMAT, "reaches beyond its storage of 4" },
        { { "a", "FloatStorage", "0", 4, -1, 1, { 1 }, { 1 } }, GIST_ERR_FORMAT, "whose arguments are not" },
        { { "a", "FloatStorage", "0", 4, 0, 1, { 2 }, { 4 } }, GIST_ERR_FORMAT, "reaches beyond" },
        { { "a", "FloatStorage", "0", 4, 0, 1, { 2 }, { INT64_MAX } }, GIST_ERR_FORMAT, "reaches beyond" },
        { { "a", "FloatStorage", "0", 4, 0, 2, { 2, 2 }, { 3, 1 } }, GIST_ERR_FORMAT, "reaches beyond" },
        { { "a", "FloatStorage", "0", 4, 0, 1, { -1 }, { 1 } }, GIST_ERR_FORMAT, "no natural number" },
        { { "a", "FloatStorage", "0", 4, 0, 1, { 1 }, { -1 } }, GIST_ERR_FORMAT, "no natural number" },
        { { "a", "FloatStorage", "0", 4, 0, 2, { big, big }, { 0, 0 } }, GIST_ERR_FORMAT, "a shape that overflows" },
        { { "a", "FloatStorage", "0", 4, 0, 1, { big }, { 0 } },
          GIST_ERR_UNSUPPORTED,
          "more elements than its storage" },
        { { "a", "FloatStorage", "0", 4, 0, 5, { 1, 1, 1, 1, 1 }, { 1, 1, 1, 1, 1 } },
          GIST_ERR_UNSUPPORTED,
          "5 dimensions, at most 4" },
        { { "a", "DoubleStorage", "0", 2, 0, 1, { 2 }, { 1 } }, GIST_ERR_UNSUPPORTED, "\"a\" is float64" },
        { { "a.weight", "IntStorage", "0", 4, 0, 1, { 4 }, { 1 } }, GIST_ERR_UNSUPPORTED, "\"a.weight\" is int32" },
        { { "a.ids", "IntStorage", "0", 4, 1, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "reaches beyond" },
        { { "", "FloatStorage", "0", 4, 0, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "has 0 bytes" },
        { { "a\n", "FloatStorage", "0", 4, 0, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "control character" },
        { { "a\xff", "FloatStorage", "0", 4, 0, 1, { 4 }, { 1 } }, GIST_ERR_FORMAT, "not UTF-8" },
        { { "a", "QInt8Storage", "0", 4, 0, 1, { 4 }, { 1 } }, GIST_ERR_UNSUPPORTED, "imports torch.QInt8Storage" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bytes b = { .n = 0 };
        make_file(&b, &bad[i].t, 1);
        refuse(&b, bad[i].code, bad[i].message);
    }
    bytes b = { .n = 0 };
    make_file(&b, (described[]){ sound, sound }, 2);
    refuse(&b, GIST_ERR_FORMAT, "\"a\" is there twice");

    described skipped = { "a.ids", "ByteStorage", "0", 16, 0, 1, { 4 }, { 1 } };
    described moved = { "b", "FloatStorage", "0", 4, 1, 2, { 1, 3 }, { 77, 1 } }; /* a stride that is never taken */
    described none = { "c", "FloatStorage", "0", 4, INT64_MAX, 2, { 0, 5 }, { 1, 1 } };
    pt_file f;
    gist_error err = { 0 };
    b.n = 0;
    make_file(&b, (described[]){ sound, skipped, moved, none }, 4);
    assert_ok(pt_parse(&f, NULL, b.p, b.n, "x", &err), &err);
    assert_int_equal(f.count, 3);
    assert_int_equal(f.name_count, 4);
    assert_int_equal(f.copy_count, 0);
    assert_ptr_equal(pt_find(&f, "b")->data, (const float *)pt_find(&f, "a")->data + 1);
    pt_close(&f);

    static described many[40]; /* each within bounds, all together more than the file */
    static char names[40][16];
    for (int i = 0; i < 40; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        many[i] = (described){ names[i], "FloatStorage", "0", 1024, 0, 2, { 32, 32 }, { 1, 32 } };
    }
    static uint8_t whole[24 << 10];
    static bytes pickle, zip;
    add_state(&pickle, many, 12);
    make_zip(&zip, (entry[]){ { "x/data.pkl", pickle.p, pickle.n }, { "x/data/0", zeros, 0 } }, 2);
    /* data/0 is the last entry and grows to 4096 bytes behind its header */
    size_t data = zip.n - 22 - (46 + 10) - (46 + 8), entry_at = zip.n - 22 - (46 + 8), end = zip.n - 22;
    memcpy(whole, zip.p, data);
    memcpy(whole + data + 4096, zip.p + data, zip.n - data);
    uint8_t *size = whole + entry_at + 4096 + 20;
    size[1] = size[5] = 16;
    uint32_t start = (uint32_t)data + 4096;
    memcpy(whole + end + 4096 + 16, &start, 4);
    assert_fails(pt_parse(&f, NULL, whole, zip.n + 4096, "x", &err), &err, GIST_ERR_LIMIT, "more bytes than the file");
}

/* Bytes of a copy of b changed. */
static void refuse_changed(const bytes *b, size_t at_byte, const char *with, size_t n, gist_status code,
                           const char *message) {
    bytes c = *b;
    memcpy(c.p + at_byte, with, n);
    refuse(&c, code, message);
}

static void bad_archives(void **state) {
    (void)state;
    bytes b = { .n = 0 };
    make_file(&b, &sound, 1);
    pt_file f;
    gist_error err = { 0 };
    assert_ok(pt_parse(&f, NULL, b.p, b.n, "x", &err), &err);
    assert_int_equal(f.count, 1);
    pt_close(&f);
    for (bytes c = b; c.n-- > 0;) refuse(&c, GIST_ERR_FORMAT, NULL);

    size_t end = b.n - 22, second = end - (46 + 8), first = second - (46 + 10), local = first - 16 - 8 - 30;
    refuse_changed(&b, 0, "PK\3\5", 4, GIST_ERR_FORMAT, "not a zip archive");
    refuse_changed(&b, end + 4, "\1", 1, GIST_ERR_FORMAT, "contradict");          /* a disk */
    refuse_changed(&b, end + 8, "\1", 1, GIST_ERR_FORMAT, "contradict");          /* entries on it */
    refuse_changed(&b, end + 8, "\3\0\3\0", 4, GIST_ERR_FORMAT, "cannot hold 3"); /* entries */
    refuse_changed(&b, end + 8, "\1\0\1\0", 4, GIST_ERR_FORMAT, "longer than its entries");
    refuse_changed(&b, end + 12, "\xff\xff", 2, GIST_ERR_FORMAT, "contradict"); /* size */
    refuse_changed(&b, end + 16, "\xff\xff\xff\xff", 4, GIST_ERR_FORMAT, "contradict");
    refuse_changed(&b, end + 20, "\1", 1, GIST_ERR_FORMAT, "contradict"); /* a comment */
    refuse_changed(&b, first, "PK\1\3", 4, GIST_ERR_FORMAT, "directory is broken");
    refuse_changed(&b, first + 8, "\1", 1, GIST_ERR_UNSUPPORTED, "\"x/data.pkl\" is encrypted");
    refuse_changed(&b, first + 10, "\x08", 1, GIST_ERR_UNSUPPORTED, "method 8, deflate");
    refuse_changed(&b, first + 10, "\x63", 1, GIST_ERR_UNSUPPORTED, "method 99)");
    refuse_changed(&b, first + 20, "\1", 1, GIST_ERR_FORMAT, "sizes that contradict each other"); /* packed */
    refuse_changed(&b, first + 20, "\xff\xff\xff\xff", 4, GIST_ERR_FORMAT,
                   "sizes that contradict"); /* no zip64 field */
    refuse_changed(&b, first + 20, "\xff\xff\0\0\xff\xff\0\0", 8, GIST_ERR_FORMAT, "\"x/data.pkl\" takes 65535 bytes");
    refuse_changed(&b, first + 28, "\0\0", 2, GIST_ERR_FORMAT, "directory is broken"); /* no name */
    refuse_changed(&b, first + 28, "\xff\xff", 2, GIST_ERR_FORMAT, "directory is broken");
    refuse_changed(&b, first + 34, "\1", 1, GIST_ERR_FORMAT, "contradict"); /* a disk */
    refuse_changed(&b, first + 42, "\1", 1, GIST_ERR_FORMAT, "\"x/data.pkl\" is not at byte 1");
    refuse_changed(&b, first + 42, "\xfe\xff\xff\xff", 4, GIST_ERR_FORMAT, "is not at byte 4294967294");
    refuse_changed(&b, second + 42, "\0\0\0\0", 4, GIST_ERR_FORMAT, "\"x/data/0\" is not at byte 0");
    refuse_changed(&b, local + 8, "\x08", 1, GIST_ERR_FORMAT, "\"x/data/0\" is not at byte");
    refuse_changed(&b, local + 30, "y", 1, GIST_ERR_FORMAT, "\"x/data/0\" is not at byte");
    refuse_changed(&b, local + 28, "\xff\xff", 2, GIST_ERR_FORMAT, "is not at byte");

    bytes two = { .n = 0 };
    make_zip(&two, (entry[]){ { "x/a", zeros, 4 }, { "x/a", zeros, 4 } }, 2);
    refuse(&two, GIST_ERR_FORMAT, "\"x/a\" is there twice");
    two.n = 0;
    make_zip(&two, (entry[]){ { "x/a", zeros, 40 }, { "x/b", zeros, 4 } }, 2);
    size_t grows = two.n - 22 - 2 * (46 + 3) + 20;
    refuse_changed(&two, grows, "\x40\0\0\0\x40\0\0\0", 8, GIST_ERR_FORMAT, "\"x/a\" and \"x/b\" overlap");
    two.n = 0;
    make_zip(&two, (entry[]){ { "x/b", zeros, 4 } }, 1);
    refuse(&two, GIST_ERR_FORMAT, "without NAME/data.pkl");
    two.n = 0;
    make_zip(&two, (entry[]){ { "flat", zeros, 4 } }, 1);
    refuse(&two, GIST_ERR_FORMAT, "without the folder");
    two.n = 0;
    make_zip(&two, (entry[]){ { "x/data.pkl", zeros, 4 }, { "x/byteorder", "big", 3 } }, 2);
    refuse(&two, GIST_ERR_UNSUPPORTED, "not little-endian");
    two.n = 0;
    make_zip(&two, NULL, 0);
    refuse(&two, GIST_ERR_FORMAT, "not a zip archive");
}

static void bad_zip64(void **state) {
    (void)state;
    char path[TEST_PATH];
    bytes b = { .n = 0 };
    size_t len;
    uint8_t *p = test_read(test_fixture(path, "torchbin/zip64.bin"), &len);
    add(&b, p, len);
    free(p);
    size_t locator = len - 22 - 20, end64 = locator - 56;
    refuse_changed(&b, locator + 4, "\1", 1, GIST_ERR_FORMAT, "contradict");
    refuse_changed(&b, locator + 8, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, GIST_ERR_FORMAT, "contradict");
    refuse_changed(&b, locator + 8, "\0", 1, GIST_ERR_FORMAT, "contradict");
    refuse_changed(&b, end64 + 4, "\xff", 1, GIST_ERR_FORMAT, "contradict");
    refuse_changed(&b, end64 + 24, "\1", 1, GIST_ERR_FORMAT, "contradict");
    refuse_changed(&b, end64 + 24, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16,
                   GIST_ERR_FORMAT, "cannot hold");
    refuse_changed(&b, end64 + 40, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, GIST_ERR_FORMAT, "contradict");
    refuse_changed(&b, end64 + 48, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, GIST_ERR_FORMAT, "contradict");
    refuse_changed(&b, locator + 20 + 10, "\1\0", 2, GIST_ERR_FORMAT, "contradict"); /* the old record knows better */
    for (size_t i = 0; i + 4 < b.n; i++)                                             /* every zip64 field */
        if (memcmp(b.p + i, "\1\0\x18\0", 4) == 0) {
            refuse_changed(&b, i, "\2", 1, GIST_ERR_FORMAT, "contradict");
            refuse_changed(&b, i + 2, "\x10", 1, GIST_ERR_FORMAT, "contradict");
            refuse_changed(&b, i + 4 + 7, "\xff", 1, GIST_ERR_FORMAT, "contradict");
            refuse_changed(&b, i + 4 + 16 + 7, "\xff", 1, GIST_ERR_FORMAT, "is not at byte");
        }
}

/* ---- directories, memory ---- */

static void directories(void **state) {
    (void)state;
    char dir[TEST_PATH], path[2 * TEST_PATH];
    weights w;
    gist_error err = { 0 };
    assert_int_equal(mkdir(test_tmp(dir, "bins"), 0777), 0);
    snprintf(path, sizeof path, "%s/pytorch_model.bin.index.json", dir);
    const char *text = "{\"weight_map\":{\"a\":\"1.bin\",\"b\":\"1.bin\"}}";
    test_write(path, text, strlen(text));
    assert_fails(weights_open(&w, NULL, dir, &err), &err, GIST_ERR_IO, "1.bin");
    bytes b = { .n = 0 };
    make_file(&b, &sound, 1);
    snprintf(path, sizeof path, "%s/1.bin", dir);
    test_write(path, b.p, b.n);
    err = (gist_error){ 0 };
    assert_fails(weights_open(&w, NULL, dir, &err), &err, GIST_ERR_FORMAT, "\"b\" should be in 1.bin");
    snprintf(path, sizeof path, "%s/pytorch_model.bin", dir);
    test_write(path, b.p, b.n);
    err = (gist_error){ 0 };
    assert_ok(weights_open(&w, NULL, dir, &err), &err);
    assert_int_equal(weights_count(&w), 1);
    weights_close(&w);
}

static gist_status open_again(void *ctx, const gist_allocator *alloc) {
    const bytes *b = ctx;
    pt_file f;
    gist_error err = { 0 };
    TRY(pt_parse(&f, alloc, b->p, b->n, "x", &err));
    pt_close(&f);
    return GIST_OK;
}

static gist_status open_shards_again(void *ctx, const gist_allocator *alloc) {
    weights w;
    gist_error err = { 0 };
    TRY(weights_open(&w, alloc, ctx, &err));
    weights_close(&w);
    return GIST_OK;
}

static void no_memory(void **state) {
    (void)state;
    char path[TEST_PATH];
    bytes b = { .n = 0 };
    size_t len;
    uint8_t *p = test_read(test_fixture(path, "torchbin/layouts.bin"), &len);
    add(&b, p, len);
    free(p);
    assert_true(test_each_alloc(open_again, &b) > 10);
    assert_true(test_each_alloc(open_shards_again, test_fixture(path, "torchbin/sharded")) > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_safetensors),
        cmocka_unit_test(tied_names_share_bytes),
        cmocka_unit_test(strides_and_shared_storages),
        cmocka_unit_test(refused_by_name),
        cmocka_unit_test(bad_pickles),
        cmocka_unit_test(refused_opcodes),
        cmocka_unit_test(deep_and_large_pickles),
        cmocka_unit_test(bad_tensors),
        cmocka_unit_test(bad_archives),
        cmocka_unit_test(bad_zip64),
        cmocka_unit_test(directories),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
