/* SHA-256 (FIPS 180-4): names the model that a run started from. */
#ifndef REGRAFT_BASE_SHA256_H
#define REGRAFT_BASE_SHA256_H

#include <stddef.h>

/* 64 hex digits and a terminator. */
void sha256_hex(const void *bytes, size_t size, char hex[65]);
void sha256_hex_plain(const void *bytes, size_t size,
                      char hex[65]); /* without the processor's instructions: for tests */

#endif
