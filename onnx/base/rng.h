/* Counter-based random numbers: the value depends on (seed, stream, counter) alone, never on what was drawn
 * before. So results are the same at any thread count, and a replayed step draws the same numbers.
 * Generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). */
#ifndef REGRAFT_BASE_RNG_H
#define REGRAFT_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct Rng {
    uint64_t seed, stream, counter; /* counter: next block of four 32-bit words */
    uint32_t block[4];
    int left; /* words of `block` not handed out yet */
} Rng;

/* Stream: whatever tells independent uses apart (node index, sample index, epoch); see rng_mix. */
Rng rng_at(uint64_t seed, uint64_t stream);
/* One number from two, well mixed: build streams like rng_mix(epoch, sample). */
uint64_t rng_mix(uint64_t a, uint64_t b);

void philox(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);

uint32_t rng_u32(Rng *rng);
uint64_t rng_below(Rng *rng, uint64_t n);            /* uniform in [0, n), unbiased; n > 0 */
double rng_uniform(Rng *rng);                        /* [0, 1) with 32 random bits */
double rng_normal(Rng *rng);                         /* mean 0, deviation 1 (Box-Muller, one of the pair) */
void rng_shuffle(Rng *rng, size_t *items, size_t n); /* Fisher-Yates */

#endif
