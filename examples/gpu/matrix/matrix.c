/* The same on a processor, where there is no graphics processor: matrix_cpu [SIZE] */
#include "matrix.h"

static void add(const float *a, const float *b, float *c, int n) {
    for (long i = 0; i < (long)n * n; i++) c[i] = a[i] + b[i];
}

static void multiply(const float *a, const float *b, float *c, int n) {
    memset(c, 0, sizeof(float) * n * n);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            float left = a[(long)i * n + k];
            for (int j = 0; j < n; j++) c[(long)i * n + j] += left * b[(long)k * n + j];
        }
}

int main(int argc, char **argv) {
    int n = size_of(argc, argv, 256);
    size_t bytes = sizeof(float) * n * n;
    float *a = (float *)malloc(bytes), *b = (float *)malloc(bytes), *c = (float *)malloc(bytes);
    if (!a || !b || !c) {
        fprintf(stderr, "no memory for matrices of %zu bytes\n", bytes);
        return 1;
    }
    fill(a, n, 1);
    fill(b, n, 2);
    double began = now_ms();
    add(a, b, c, n);
    double took = now_ms() - began;
    int bad = report("add", "a processor", n, took, checksum(c, n), wrong_sums(a, b, c, n));
    began = now_ms();
    multiply(a, b, c, n);
    took = now_ms() - began;
    bad |= report("multiply", "a processor", n, took, checksum(c, n), wrong_products(a, b, c, n, 10));
    free(a);
    free(b);
    free(c);
    return bad;
}
