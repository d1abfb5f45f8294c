/* What every test includes first: cmocka with the headers it needs, and its `fail` macro out of the way of ours. */
#ifndef REGRAFT_TESTS_TEST_H
#define REGRAFT_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

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

/* Passes when the call succeeds; prints the recorded message when not. */
#define assert_ok(call, err)                                                                                           \
    do {                                                                                                               \
        if ((call) != STATUS_OK) {                                                                                     \
            print_error("%s: %s\n", #call, (err)->message);                                                            \
            _fail(__FILE__, __LINE__);                                                                                 \
        }                                                                                                              \
    } while (0)

#endif
