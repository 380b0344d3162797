/* What both builds share: sizes, input, the check, and timing. The input is small whole numbers, so that sums are exact in
 * float and every correct order of additions gives the same bits. */
#ifndef MATRIX_H
#define MATRIX_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline void fill(float *m, int n, unsigned seed) {
    for (long i = 0; i < (long)n * n; i++) {
        seed = seed * 1664525u + 1013904223u;
        m[i] = (float)((int)(seed >> 24) % 7 - 3);
    }
}

/* The sum of a row-major n*n matrix, weighted by place so that a swapped element shows. */
static inline double checksum(const float *m, int n) {
    double sum = 0;
    for (long i = 0; i < (long)n * n; i++) sum += (double)m[i] * (double)(i % 1009 + 1);
    return sum;
}

/* Looks at every element of a sum. */
static inline long wrong_sums(const float *a, const float *b, const float *c, int n) {
    long wrong = 0;
    for (long i = 0; i < (long)n * n; i++) wrong += c[i] != a[i] + b[i];
    return wrong;
}

/* Freivalds' check of a product: a*(b*x) == c*x for random x of 0 and 1; each round misses a wrong product with
 * probability of at most one half. */
static inline long wrong_products(const float *a, const float *b, const float *c, int n, int rounds) {
    double *x = (double *)malloc(sizeof(double) * n), *bx = (double *)malloc(sizeof(double) * n);
    long wrong = 0;
    unsigned seed = 12345;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            x[i] = (double)(seed >> 31);
        }
        for (int i = 0; i < n; i++) {
            bx[i] = 0;
            for (int j = 0; j < n; j++) bx[i] += (double)b[(long)i * n + j] * x[j];
        }
        for (int i = 0; i < n; i++) {
            double abx = 0, cx = 0;
            for (int j = 0; j < n; j++) {
                abx += (double)a[(long)i * n + j] * bx[j];
                cx += (double)c[(long)i * n + j] * x[j];
            }
            wrong += abx != cx;
        }
    }
    free(x);
    free(bx);
    return wrong;
}

static inline double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static inline int size_of(int argc, char **argv, int fallback) {
    int n = argc > 1 ? atoi(argv[1]) : fallback;
    if (n < 1 || n > 16384) {
        fprintf(stderr, "the size must be between 1 and 16384, not %s\n", argv[1]);
        exit(2);
    }
    return n;
}

static inline int report(const char *what, const char *where, int n, double ms, double sum, long wrong) {
    printf("%s %dx%d on %s: %.2f ms, checksum %.0f, %s\n", what, n, n, where, ms, sum, wrong ? "WRONG" : "verified");
    FILE *f = fopen("result.txt", "a");
    if (!f) {
        perror("result.txt");
        return 1;
    }
    fprintf(f, "%s %d %.0f\n", what, n, sum);
    return fclose(f) || wrong ? 1 : 0;
}

#endif
