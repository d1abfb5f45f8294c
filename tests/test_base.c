/* onnx/base: arena, map, text, random numbers. */
#include "tests/test.h"

#include "onnx/base/arena.h"
#include "onnx/base/map.h"
#include "onnx/base/rng.h"
#include "onnx/base/str.h"

static void map_keeps_order_and_forgets_removed_keys(void **state)
{
    (void)state;
    Arena arena;
    arena_init(&arena);
    Map map;
    map_init(&map);
    for (int i = 0; i < 1000; i++)
        map_set(&map, arena_printf(&arena, "key%d", i), arena_printf(&arena, "%d", i));
    map_remove(&map, "key7");
    assert_null(map_get(&map, "key7"));
    assert_string_equal(map_get(&map, "key999"), "999");
    assert_int_equal(map.live, 999);
    map_set(&map, "key7", &map);
    assert_ptr_equal(map_get(&map, "key7"), &map);
    map_release(&map);
    arena_release(&arena);
}

/* Known answers of Random123's kat_vectors for philox4x32-10. */
static void philox_gives_the_published_vectors(void **state)
{
    (void)state;
    uint32_t out[4];
    philox(0, 0, 0, out);
    const uint32_t zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    assert_memory_equal(out, zero, sizeof zero);
    philox(UINT64_MAX, UINT64_MAX, UINT64_MAX, out);
    const uint32_t ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    assert_memory_equal(out, ones, sizeof ones);
}

static void json_text_survives_hostile_bytes(void **state)
{
    (void)state;
    Str str;
    str_init(&str);
    str_append_json(&str, "a\"\\\n\xc3\xa9\xff");
    assert_string_equal(str.text, "\"a\\\"\\\\\\u000a\xc3\xa9\\ufffd\"");
    str_release(&str);
}

static void nearest_name_is_suggested_only_when_near(void **state)
{
    (void)state;
    const char *names[] = {"conv1.weight", "fc.weight", "fc.bias"};
    assert_string_equal(text_nearest("fc.wieght", names, 3), "fc.weight");
    assert_null(text_nearest("zzz", names, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_keeps_order_and_forgets_removed_keys),
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(json_text_survives_hostile_bytes),
        cmocka_unit_test(nearest_name_is_suggested_only_when_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
