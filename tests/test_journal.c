/* test_journal.c - the journal of finished work: there and back, cut off at every byte, one process at a time. */
#include "testing.h"

#include "eval/eval.h"

static gist_status journal_once(void *ctx, const gist_allocator *alloc) {
    gist_error err = { 0 };
    eval_journal *j = NULL;
    gist_status status = eval_journal_open(ctx, alloc, &j, &err);
    if (status == GIST_OK) status = eval_journal_add(j, hash_bytes("c", 1), json_pack("{s:i}", "n", 3), &err);
    eval_journal_close(j);
    return status;
}

static void journal(void **state) {
    (void)state;
    char path[TEST_PATH];
    gist_error err = { 0 };
    eval_journal *j = NULL, *second = NULL;
    hash128 a = hash_bytes("a", 1), b = hash_bytes("b", 1);
    assert_ok(eval_journal_open(test_tmp(path, "journal.jsonl"), mem_default(), &j, &err), &err);
    assert_int_equal(eval_journal_count(j), 0);
    assert_ok(eval_journal_add(j, a, json_pack("{s:i, s:s}", "n", 1, "text", "line\nend \"\xC3\xA9"), &err), &err);
    assert_ok(eval_journal_add(j, b, json_pack("{s:i}", "n", 2), &err), &err);
    assert_int_equal(json_integer_value(json_object_get(eval_journal_find(j, a), "n")), 1);
    assert_fails(eval_journal_open(path, mem_default(), &second, &err), &err, GIST_ERR_IO, "another process");
    err = (gist_error){ 0 };
    assert_fails(eval_journal_add(j, a, NULL, &err), &err, GIST_ERR_MEMORY, NULL);
    eval_journal_close(j);
    err = (gist_error){ 0 };
    file_map map;
    assert_ok(map_open(path, &map, &err), &err);
    char *bytes = mem_strndup(NULL, (const char *)map.data, map.size);
    size_t size = map.size;
    map_close(&map);
    for (size_t cut = 0; cut <= size; cut++) { /* killed anywhere: whole lines stay, and it can be gone on with */
        test_write(path, bytes, cut);
        int lines = 0;
        for (size_t i = 0; i < cut; i++) lines += bytes[i] == '\n';
        assert_ok(eval_journal_open(path, mem_default(), &j, &err), &err);
        assert_int_equal(eval_journal_count(j), lines);
        assert_ok(eval_journal_add(j, b, json_pack("{s:i}", "n", 9), &err), &err);
        eval_journal_close(j);
        assert_ok(eval_journal_open(path, mem_default(), &j, &err), &err);
        assert_int_equal(eval_journal_count(j), lines == 0 ? 1 : 2);
        assert_int_equal(json_integer_value(json_object_get(eval_journal_find(j, b), "n")), 9);
        if (lines > 0)
            assert_string_equal(json_string_value(json_object_get(eval_journal_find(j, a), "text")),
                                "line\nend \"\xC3\xA9");
        eval_journal_close(j);
    }
    mem_free(NULL, bytes);
    test_write(path, "{\"key\":\"0123\"}\n", 15);
    assert_fails(eval_journal_open(path, mem_default(), &j, &err), &err, GIST_ERR_FORMAT,
                 "journal.jsonl:1: no \"key\"");
    err = (gist_error){ 0 };
    test_write(path, "[]\n{\n", 5);
    assert_fails(eval_journal_open(path, mem_default(), &j, &err), &err, GIST_ERR_FORMAT, "journal.jsonl:1:");
    test_write(path, "", 0);
    assert_true(test_each_alloc(journal_once, path) >= 3);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(journal) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
