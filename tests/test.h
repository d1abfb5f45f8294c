/* What every test includes first: cmocka with the headers it needs, and its `fail` macro out of the way of ours. */
#ifndef REGRAFT_TESTS_TEST_H
#define REGRAFT_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                                                  \
    do {                                                                                                               \
        print_error(__VA_ARGS__);                                                                                      \
        print_error("\n");                                                                                             \
        _fail(__FILE__, __LINE__);                                                                                     \
    } while (0)

#include "onnx/base/error.h"

/* How much of the long suites runs (REGRAFT_TEST_SIZE): scripts/test.sh asks for `few` where sanitizers or counters
 * make everything slow, its --full for `all`. */
typedef enum TestSize { TEST_FEW, TEST_SAMPLE, TEST_ALL } TestSize;
static inline TestSize test_size(void)
{
    const char *size = getenv("REGRAFT_TEST_SIZE");
    return size == NULL               ? TEST_SAMPLE
           : strcmp(size, "few") == 0 ? TEST_FEW
           : strcmp(size, "all") == 0 ? TEST_ALL
                                      : TEST_SAMPLE;
}

/* Passes when the call succeeds; prints the recorded message when not. */
#define assert_ok(call, err)                                                                                           \
    do {                                                                                                               \
        if ((call) != STATUS_OK) {                                                                                     \
            print_error("%s: %s\n", #call, (err)->message);                                                            \
            _fail(__FILE__, __LINE__);                                                                                 \
        }                                                                                                              \
    } while (0)

#endif
