/* unpickle.c - reading the pickle of a PyTorch state dict from bytes that are not trusted.  Nothing is executed.
 *
 *   opcodes --a stack, marks, a memo--> values:  int  bool  none  text  tuple  dict  a name of `globals`
 *                                                storage (key, type, elements)      from a persistent id
 *                                                tensor (storage, offset, shape, strides)
 *   STOP    --the dict on top of the stack--> names and tensors
 *
 * A pickle is a program.  This reads the one that torch.save writes for a dict of tensors (protocol 2) and nothing
 * else: 25 opcodes, and the names of `globals`, of which two can be called:
 *
 *   collections.OrderedDict ()                                                            -> dict
 *   torch._utils._rebuild_tensor_v2 (storage, offset, shape, strides, requires_grad, {})  -> tensor
 *   persistent id ("storage", torch.XStorage, key, place, elements)                       -> storage
 *
 * Every other opcode and every other name is refused by its name.  Values that no tensor is made of (metadata of
 * modules, hooks) are read and dropped.  No recursion: a tuple is a run of values in one array, a dict a number that
 * its pairs carry.  Each opcode adds at most one value to each array (a tuple moves what is on the stack), so memory is
 * bounded by the length of the pickle.
 * Source: pickletools.py of CPython; torch/serialization.py (what is written, not how it is read).
 */
#include <inttypes.h>
#include <stdlib.h>

#include "format/format_int.h"

enum { SHOWN = 72, LINE_MAX_BYTES = 255, STATE_ARGS = 6, STORAGE_ARGS = 5 };

/* ---- names ---- */

typedef enum global_kind { GLOBAL_DICT, GLOBAL_TENSOR, GLOBAL_STORAGE } global_kind;

static const struct global {
    const char *module, *name;
    global_kind kind;
    pickle_type type; /* of a storage */
} globals[] = {
    { "collections", "OrderedDict", GLOBAL_DICT, { 0 } },
    { "torch._utils", "_rebuild_tensor_v2", GLOBAL_TENSOR, { 0 } },
    { "torch", "FloatStorage", GLOBAL_STORAGE, { "float32", 4, true, false, DT_F32 } },
    { "torch", "BFloat16Storage", GLOBAL_STORAGE, { "bfloat16", 2, true, false, DT_BF16 } },
    { "torch", "HalfStorage", GLOBAL_STORAGE, { "float16", 2, true, false, DT_F16 } },
    { "torch", "DoubleStorage", GLOBAL_STORAGE, { "float64", 8, false, false, 0 } },
    { "torch", "LongStorage", GLOBAL_STORAGE, { "int64", 8, false, true, 0 } },
    { "torch", "IntStorage", GLOBAL_STORAGE, { "int32", 4, false, true, 0 } },
    { "torch", "ShortStorage", GLOBAL_STORAGE, { "int16", 2, false, true, 0 } },
    { "torch", "CharStorage", GLOBAL_STORAGE, { "int8", 1, false, true, 0 } },
    { "torch", "ByteStorage", GLOBAL_STORAGE, { "uint8", 1, false, true, 0 } },
    { "torch", "BoolStorage", GLOBAL_STORAGE, { "bool", 1, false, true, 0 } },
};
enum { GLOBALS = sizeof globals / sizeof *globals };

/* Every opcode of protocols 0 to 5, so that one that is refused has its name in the message. */
typedef enum opcode {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_BINUNICODE = 'X',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_SETITEMS = 'u',
    OP_EMPTY_DICT = '}',
    OP_EMPTY_TUPLE = ')',
    OP_PROTO = 0x80,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a
} opcode;

static const struct opcode_name {
    uint8_t op;
    char name[17];
} opcode_names[] = {
    { OP_MARK, "MARK" },
    { OP_STOP, "STOP" },
    { OP_BININT, "BININT" },
    { OP_BININT1, "BININT1" },
    { OP_BININT2, "BININT2" },
    { OP_NONE, "NONE" },
    { OP_BINPERSID, "BINPERSID" },
    { OP_REDUCE, "REDUCE" },
    { OP_BINUNICODE, "BINUNICODE" },
    { OP_BUILD, "BUILD" },
    { OP_GLOBAL, "GLOBAL" },
    { OP_BINGET, "BINGET" },
    { OP_LONG_BINGET, "LONG_BINGET" },
    { OP_BINPUT, "BINPUT" },
    { OP_LONG_BINPUT, "LONG_BINPUT" },
    { OP_SETITEM, "SETITEM" },
    { OP_TUPLE, "TUPLE" },
    { OP_SETITEMS, "SETITEMS" },
    { OP_EMPTY_DICT, "EMPTY_DICT" },
    { OP_EMPTY_TUPLE, "EMPTY_TUPLE" },
    { OP_PROTO, "PROTO" },
    { OP_TUPLE1, "TUPLE1" },
    { OP_TUPLE2, "TUPLE2" },
    { OP_TUPLE3, "TUPLE3" },
    { OP_NEWTRUE, "NEWTRUE" },
    { OP_NEWFALSE, "NEWFALSE" },
    { OP_LONG1, "LONG1" },
    /* refused */
    { '0', "POP" },
    { '1', "POP_MARK" },
    { '2', "DUP" },
    { 'F', "FLOAT" },
    { 'I', "INT" },
    { 'L', "LONG" },
    { 'P', "PERSID" },
    { 'S', "STRING" },
    { 'T', "BINSTRING" },
    { 'U', "SHORT_BINSTRING" },
    { 'V', "UNICODE" },
    { 'B', "BINBYTES" },
    { 'C', "SHORT_BINBYTES" },
    { 'G', "BINFLOAT" },
    { 'a', "APPEND" },
    { 'd', "DICT" },
    { 'e', "APPENDS" },
    { 'g', "GET" },
    { 'i', "INST" },
    { 'l', "LIST" },
    { ']', "EMPTY_LIST" },
    { 'o', "OBJ" },
    { 'p', "PUT" },
    { 0x81, "NEWOBJ" },
    { 0x82, "EXT1" },
    { 0x83, "EXT2" },
    { 0x84, "EXT4" },
    { 0x8b, "LONG4" },
    { 0x8c, "SHORT_BINUNICODE" },
    { 0x8d, "BINUNICODE8" },
    { 0x8e, "BINBYTES8" },
    { 0x8f, "EMPTY_SET" },
    { 0x90, "ADDITEMS" },
    { 0x91, "FROZENSET" },
    { 0x92, "NEWOBJ_EX" },
    { 0x93, "STACK_GLOBAL" },
    { 0x94, "MEMOIZE" },
    { 0x95, "FRAME" },
    { 0x96, "BYTEARRAY8" },
    { 0x97, "NEXT_BUFFER" },
    { 0x98, "READONLY_BUFFER" },
};

static const char *name_of(uint8_t op) {
    for (size_t i = 0; i < sizeof opcode_names / sizeof *opcode_names; i++)
        if (opcode_names[i].op == op) return opcode_names[i].name;
    return "none of pickle's";
}

/* ---- values ---- */

typedef enum value_kind {
    VALUE_MARK,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_TEXT,
    VALUE_GLOBAL,
    VALUE_TUPLE,
    VALUE_DICT,
    VALUE_STORAGE,
    VALUE_TENSOR
} value_kind;

typedef struct value {
    value_kind kind;
    uint32_t n; /* of a text: bytes; of a tuple: values */
    int64_t v;  /* a number, or an index: of a text in the pickle, of all others in their array */
} value;

typedef struct pair {
    int64_t dict;
    value key, item;
} pair;

/* An array that grows. */
typedef struct list {
    void *p;
    size_t n, cap;
} list;

typedef struct machine {
    const gist_allocator *alloc;
    const char *what;
    rd r;
    size_t at; /* of the opcode at work */
    uint8_t op;
    list stack, memo, items, pairs; /* of value, value, value (in tuples), pair */
    list storages, tensors;         /* of pickle_storage, pickle_tensor */
    int64_t dicts;
} machine;

static gist_status broken(const machine *m, const char *why, gist_error *err) {
    return err_at(err, GIST_ERR_FORMAT, m->at, "%s: data.pkl, byte %zu, %s: %s", m->what, m->at, name_of(m->op), why);
}

/* One more element of `size` bytes, NULL: no memory. */
static void *append(machine *m, list *l, size_t size) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        void *p = mem_resize(m->alloc, l->p, l->n, cap, size);
        if (!p) return NULL;
        l->p = p;
        l->cap = cap;
    }
    return (uint8_t *)l->p + l->n++ * size;
}

static gist_status put(machine *m, list *l, value v, gist_error *err) {
    value *slot = append(m, l, sizeof v);
    if (!slot) return err_memory(err, "pickle");
    *slot = v;
    return GIST_OK;
}

static gist_status push(machine *m, value_kind kind, int64_t v, uint32_t n, gist_error *err) {
    return put(m, &m->stack, (value){ kind, n, v }, err);
}

static value *stack_at(const machine *m, size_t from_top) {
    return (value *)m->stack.p + m->stack.n - 1 - from_top;
}

/* The topmost n values stand above any mark. */
static gist_status need(const machine *m, size_t n, gist_error *err) {
    if (m->stack.n < n) return broken(m, "the stack is too short", err);
    for (size_t i = 0; i < n; i++)
        if (stack_at(m, i)->kind == VALUE_MARK) return broken(m, "a mark where a value should be", err);
    return GIST_OK;
}

/* How many values stand above the topmost mark. */
static gist_status above_mark(const machine *m, size_t *n, gist_error *err) {
    for (*n = 0; *n < m->stack.n; (*n)++)
        if (stack_at(m, *n)->kind == VALUE_MARK) return GIST_OK;
    return broken(m, "no mark on the stack", err);
}

static value item(const machine *m, const value *tuple, size_t i) {
    return ((const value *)m->items.p)[(size_t)tuple->v + i];
}

static bool is_tuple(const value *v, uint32_t n) {
    return v->kind == VALUE_TUPLE && v->n == n;
}

static bool is_text(const machine *m, const value *v, const char *text) {
    return v->kind == VALUE_TEXT && v->n == strlen(text) && memcmp(m->r.p + v->v, text, v->n) == 0;
}

/* ---- tuples, texts, dicts ---- */

/* The topmost n values become a tuple; `marks` of what is below goes with them. */
static gist_status make_tuple(machine *m, size_t n, size_t marks, gist_error *err) {
    value tuple = { VALUE_TUPLE, (uint32_t)n, (int64_t)m->items.n };
    TRY(need(m, n, err));
    for (size_t i = n; i-- > 0;) TRY(put(m, &m->items, *stack_at(m, i), err));
    m->stack.n -= n + marks;
    return put(m, &m->stack, tuple, err);
}

static gist_status set_item(machine *m, const value *dict, const value *key, const value *v, gist_error *err) {
    if (dict->kind != VALUE_DICT) return broken(m, "an item is set of what is no dict", err);
    if (key->kind != VALUE_TEXT) return broken(m, "a key that is no text", err);
    pair *slot = append(m, &m->pairs, sizeof *slot);
    if (!slot) return err_memory(err, "pickle");
    *slot = (pair){ dict->v, *key, *v };
    return GIST_OK;
}

static gist_status set_items(machine *m, gist_error *err) {
    size_t n;
    TRY(above_mark(m, &n, err));
    if (n % 2 || m->stack.n < n + 2) return broken(m, "no pairs behind a dict", err);
    const value *dict = stack_at(m, n + 1);
    for (size_t i = n; i > 0; i -= 2) TRY(set_item(m, dict, stack_at(m, i - 1), stack_at(m, i - 2), err));
    m->stack.n -= n + 1;
    return GIST_OK;
}

static gist_status set_one(machine *m, gist_error *err) {
    TRY(need(m, 3, err));
    TRY(set_item(m, stack_at(m, 2), stack_at(m, 1), stack_at(m, 0), err));
    m->stack.n -= 2;
    return GIST_OK;
}

/* Attributes of a dict: what PyTorch knows of the modules.  Dropped. */
static gist_status build(machine *m, gist_error *err) {
    TRY(need(m, 2, err));
    if (stack_at(m, 0)->kind != VALUE_DICT || stack_at(m, 1)->kind != VALUE_DICT)
        return broken(m, "attributes of what is no dict", err);
    m->stack.n--;
    return GIST_OK;
}

static gist_status read_text(machine *m, gist_error *err) {
    uint32_t n = rd_u32(&m->r);
    size_t at = m->r.pos;
    return rd_bytes(&m->r, n) ? push(m, VALUE_TEXT, (int64_t)at, n, err) : broken(m, "cut off", err);
}

/* Little-endian, two's complement, of any length; numbers of up to eight bytes are read. */
static gist_status read_long(machine *m, gist_error *err) {
    uint8_t n = rd_u8(&m->r);
    const uint8_t *b = rd_bytes(&m->r, n);
    if (!b) return broken(m, "cut off", err);
    if (n > 8) return broken(m, "a number of more than 8 bytes", err);
    uint64_t v = n && b[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (int i = n - 1; i >= 0; i--) v = v << 8 | b[i];
    return push(m, VALUE_INT, (int64_t)v, 0, err);
}

/* ---- the memo: written in order, as every pickler does ---- */

static gist_status memo_put(machine *m, uint32_t at, gist_error *err) {
    TRY(need(m, 1, err));
    if (at != m->memo.n) return broken(m, "a memo index out of order", err);
    return put(m, &m->memo, *stack_at(m, 0), err);
}

static gist_status memo_get(machine *m, uint32_t at, gist_error *err) {
    if (at >= m->memo.n) return broken(m, "a memo index that was never written", err);
    return put(m, &m->stack, ((const value *)m->memo.p)[at], err);
}

/* ---- names and what they make ---- */

/* Up to a newline, which is taken too; NULL: none in reach. */
static const char *read_line(rd *r, size_t *n) {
    size_t most = rd_left(r) < LINE_MAX_BYTES ? rd_left(r) : LINE_MAX_BYTES;
    const char *line = (const char *)r->p + r->pos, *end = most ? memchr(line, '\n', most) : NULL;
    if (!end) return NULL;
    *n = (size_t)(end - line);
    rd_bytes(r, *n + 1);
    return line;
}

static bool same(const char *s, size_t n, const char *text) {
    return n == strlen(text) && memcmp(s, text, n) == 0;
}

static gist_status read_global(machine *m, gist_error *err) {
    size_t module_len = 0, name_len = 0;
    char shown_module[SHOWN], shown_name[SHOWN];
    const char *module = read_line(&m->r, &module_len);
    const char *name = module ? read_line(&m->r, &name_len) : NULL;
    if (!name) return broken(m, "a name without an end", err);
    for (int i = 0; i < GLOBALS; i++)
        if (same(module, module_len, globals[i].module) && same(name, name_len, globals[i].name))
            return push(m, VALUE_GLOBAL, i, 0, err);
    return err_at(err, GIST_ERR_UNSUPPORTED, m->at,
                  "%s: data.pkl, byte %zu: it imports %s.%s, which is refused (a state dict of tensors needs "
                  "collections.OrderedDict, torch._utils._rebuild_tensor_v2 and torch's storages; nothing was run)",
                  m->what, m->at, json_show(shown_module, SHOWN, module, module_len),
                  json_show(shown_name, SHOWN, name, name_len));
}

static gist_status make_storage(machine *m, gist_error *err) {
    TRY(need(m, 1, err));
    value *top = stack_at(m, 0), a[STORAGE_ARGS];
    if (!is_tuple(top, STORAGE_ARGS)) return broken(m, "a persistent id that is no tuple of 5", err);
    for (size_t i = 0; i < STORAGE_ARGS; i++) a[i] = item(m, top, i);
    bool sound = is_text(m, &a[0], "storage") && a[1].kind == VALUE_GLOBAL && globals[a[1].v].kind == GLOBAL_STORAGE &&
                 a[2].kind == VALUE_TEXT && a[3].kind == VALUE_TEXT && a[4].kind == VALUE_INT && a[4].v >= 0;
    if (!sound) return broken(m, "a persistent id that names no storage", err);
    pickle_storage *s = append(m, &m->storages, sizeof *s);
    if (!s) return err_memory(err, "pickle");
    *s = (pickle_storage){ .key = (const char *)m->r.p + a[2].v,
                           .key_len = a[2].n,
                           .type = &globals[a[1].v].type,
                           .elements = (uint64_t)a[4].v };
    *top = (value){ VALUE_STORAGE, 0, (int64_t)m->storages.n - 1 };
    return GIST_OK;
}

/* (storage, offset, shape, strides, requires_grad, hooks) */
static gist_status make_tensor(machine *m, const value *args, value *out, gist_error *err) {
    value a[STATE_ARGS];
    if (!is_tuple(args, STATE_ARGS)) return broken(m, "a tensor of another number of arguments than 6", err);
    for (size_t i = 0; i < STATE_ARGS; i++) a[i] = item(m, args, i);
    if (a[0].kind != VALUE_STORAGE || a[1].kind != VALUE_INT || a[1].v < 0 || a[2].kind != VALUE_TUPLE ||
        !is_tuple(&a[3], a[2].n) || a[4].kind != VALUE_BOOL || a[5].kind != VALUE_DICT)
        return broken(m, "a tensor whose arguments are not storage, offset, shape, strides, bool, dict", err);
    if (a[2].n > TENSOR_MAX_DIMS)
        return err_at(err, GIST_ERR_UNSUPPORTED, m->at,
                      "%s: data.pkl, byte %zu: a tensor of %" PRIu32 " dimensions, at most %d are read", m->what, m->at,
                      a[2].n, TENSOR_MAX_DIMS);
    pickle_tensor t = { .storage = (size_t)a[0].v, .offset = (uint64_t)a[1].v, .dims = (int)a[2].n };
    for (size_t d = 0; d < a[2].n; d++) {
        value extent = item(m, &a[2], d), stride = item(m, &a[3], d);
        if (extent.kind != VALUE_INT || extent.v < 0 || stride.kind != VALUE_INT || stride.v < 0)
            return broken(m, "a tensor with an extent or stride that is no natural number", err);
        t.shape[d] = extent.v;
        t.stride[d] = stride.v;
    }
    pickle_tensor *slot = append(m, &m->tensors, sizeof t);
    if (!slot) return err_memory(err, "pickle");
    *slot = t;
    *out = (value){ VALUE_TENSOR, 0, (int64_t)m->tensors.n - 1 };
    return GIST_OK;
}

/* function, arguments -> what it makes */
static gist_status reduce(machine *m, gist_error *err) {
    TRY(need(m, 2, err));
    value f = *stack_at(m, 1), args = *stack_at(m, 0), made = { VALUE_DICT, 0, m->dicts };
    if (f.kind != VALUE_GLOBAL || args.kind != VALUE_TUPLE) return broken(m, "a call of what is no function", err);
    const struct global *g = &globals[f.v];
    if (g->kind == GLOBAL_STORAGE)
        return err_at(err, GIST_ERR_UNSUPPORTED, m->at, "%s: data.pkl, byte %zu: it calls %s.%s, which is refused",
                      m->what, m->at, g->module, g->name);
    if (g->kind == GLOBAL_TENSOR)
        TRY(make_tensor(m, &args, &made, err));
    else if (args.n != 0)
        return broken(m, "OrderedDict with arguments", err);
    else
        m->dicts++;
    m->stack.n--;
    *stack_at(m, 0) = made;
    return GIST_OK;
}

/* ---- the opcodes ---- */

static gist_status step(machine *m, gist_error *err) {
    rd *r = &m->r;
    size_t n;
    switch (m->op) {
    case OP_MARK: return push(m, VALUE_MARK, 0, 0, err);
    case OP_NONE: return push(m, VALUE_NONE, 0, 0, err);
    case OP_NEWTRUE: return push(m, VALUE_BOOL, 1, 0, err);
    case OP_NEWFALSE: return push(m, VALUE_BOOL, 0, 0, err);
    case OP_BININT: return push(m, VALUE_INT, (int32_t)rd_u32(r), 0, err);
    case OP_BININT1: return push(m, VALUE_INT, rd_u8(r), 0, err);
    case OP_BININT2: return push(m, VALUE_INT, rd_u16(r), 0, err);
    case OP_LONG1: return read_long(m, err);
    case OP_BINUNICODE: return read_text(m, err);
    case OP_EMPTY_TUPLE: return make_tuple(m, 0, 0, err);
    case OP_TUPLE1: return make_tuple(m, 1, 0, err);
    case OP_TUPLE2: return make_tuple(m, 2, 0, err);
    case OP_TUPLE3: return make_tuple(m, 3, 0, err);
    case OP_TUPLE: TRY(above_mark(m, &n, err)); return make_tuple(m, n, 1, err);
    case OP_EMPTY_DICT: return push(m, VALUE_DICT, m->dicts++, 0, err);
    case OP_SETITEM: return set_one(m, err);
    case OP_SETITEMS: return set_items(m, err);
    case OP_BUILD: return build(m, err);
    case OP_BINPUT: return memo_put(m, rd_u8(r), err);
    case OP_LONG_BINPUT: return memo_put(m, rd_u32(r), err);
    case OP_BINGET: return memo_get(m, rd_u8(r), err);
    case OP_LONG_BINGET: return memo_get(m, rd_u32(r), err);
    case OP_GLOBAL: return read_global(m, err);
    case OP_BINPERSID: return make_storage(m, err);
    case OP_REDUCE: return reduce(m, err);
    default:
        return err_at(err, GIST_ERR_UNSUPPORTED, m->at,
                      "%s: data.pkl, byte %zu: opcode 0x%02x (%s), which a state dict of tensors does not need, is "
                      "refused",
                      m->what, m->at, m->op, name_of(m->op));
    }
}

static gist_status run(machine *m, gist_error *err) {
    m->op = rd_u8(&m->r);
    uint8_t protocol = rd_u8(&m->r);
    if (m->r.failed || m->op != OP_PROTO) return broken(m, "the pickle does not begin with its protocol", err);
    if (protocol != 2)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: a pickle of protocol %d; torch.save writes 2 unless asked otherwise, and that is read",
                       m->what, protocol);
    for (;;) {
        m->at = m->r.pos;
        m->op = rd_u8(&m->r);
        if (m->r.failed) return err_set(err, GIST_ERR_FORMAT, "%s: data.pkl ends without STOP", m->what);
        if (m->op == OP_STOP) break;
        TRY(step(m, err));
        if (m->r.failed) return broken(m, "cut off", err);
    }
    if (rd_left(&m->r)) return broken(m, "more bytes follow", err);
    if (m->stack.n != 1) return broken(m, "not one value is left on the stack", err);
    return GIST_OK;
}

/* ---- the result ---- */

static gist_status collect(machine *m, pickle_dict *out, gist_error *err) {
    const value *top = stack_at(m, 0);
    const pair *pairs = m->pairs.p;
    char shown[SHOWN];
    if (top->kind != VALUE_DICT)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: data.pkl holds no dict; a state dict is read", m->what);
    out->items = mem_alloc(m->alloc, m->pairs.n, sizeof *out->items);
    if (!out->items) return err_memory(err, "pickle");
    for (size_t i = 0; i < m->pairs.n; i++) {
        const pair *p = &pairs[i];
        if (p->dict != top->v) continue;
        const char *name = (const char *)m->r.p + p->key.v;
        if (p->item.kind != VALUE_TENSOR)
            return err_set(err, GIST_ERR_UNSUPPORTED, "%s: \"%s\" is no tensor; a state dict holds tensors only",
                           m->what, json_show(shown, SHOWN, name, p->key.n));
        const pickle_tensor *t = (const pickle_tensor *)m->tensors.p + p->item.v;
        out->items[out->count++] = (pickle_item){ .name = name,
                                                  .name_len = p->key.n,
                                                  .tensor = *t,
                                                  .storage = ((const pickle_storage *)m->storages.p)[t->storage] };
    }
    return GIST_OK;
}

gist_status pickle_parse(pickle_dict *out, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                         gist_error *err) {
    machine m = { .alloc = alloc ? alloc : mem_default(), .what = json_what(what) };
    pickle_dict d = { .alloc = m.alloc };
    if (len > PICKLE_MAX)
        return err_set(err, GIST_ERR_LIMIT, "%s: data.pkl takes %zu bytes, at most %d", m.what, len, PICKLE_MAX);
    rd_init(&m.r, bytes, len);
    gist_status status = run(&m, err);
    if (status == GIST_OK) status = collect(&m, &d, err);
    list *const lists[] = { &m.stack, &m.memo, &m.items, &m.pairs, &m.storages, &m.tensors };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) mem_free(m.alloc, lists[i]->p);
    if (status == GIST_OK)
        *out = d;
    else
        pickle_free(&d);
    return status;
}

void pickle_free(pickle_dict *d) {
    mem_free(d->alloc, d->items);
    *d = (pickle_dict){ 0 };
}
