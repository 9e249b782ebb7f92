/* Multiply-adds in single precision from registers alone, on one core: prints the best of several rounds,
 * 10^9 operations per second, where a multiply-add is two.
 *
 *     cc -O2 -march=native fma_peak.c -o fma_peak && ./fma_peak
 */
#include <stdio.h>
#include <time.h>

#ifdef __AVX512F__
#define BYTES 64
#else
#define BYTES 32
#endif
typedef float vector __attribute__((vector_size(BYTES)));

enum { SUMS = 12, STEPS = 2000000, ROUNDS = 20 }; /* more sums than latency times throughput */

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

int main(int count, char** arguments) {
  (void)arguments;
  const vector factor = (vector){0} + 0.999f * (float)count, more = (vector){0} + 0.001f * (float)count;
  vector sums[SUMS];
  double best = 0;
  for (int k = 0; k < SUMS; ++k) sums[k] = more * (float)k;
  for (int round = 0; round < ROUNDS; ++round) {
    const double started = seconds();
    for (int step = 0; step < STEPS; ++step) {
#pragma GCC unroll 12
      for (int k = 0; k < SUMS; ++k) sums[k] = sums[k] * factor + more;
    }
    const double rate = 2.0 * SUMS * STEPS * (sizeof(vector) / sizeof(float)) / (seconds() - started);
    if (rate > best) best = rate;
  }
  float total = 0;
  for (int k = 0; k < SUMS; ++k) total += sums[k][0];
  printf("%.1f\n", total > -1 ? best / 1e9 : 0.0); /* the sums are used */
  return 0;
}
