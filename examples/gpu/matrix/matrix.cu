/* Matrix addition and multiplication on a graphics processor: matrix_gpu [SIZE] */
#include "matrix.h"

#define TILE 16

#define CHECK(call)                                                                              \
    do {                                                                                         \
        cudaError_t e = (call);                                                                  \
        if (e != cudaSuccess) {                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(e));           \
            exit(3);                                                                             \
        }                                                                                        \
    } while (0)

__global__ void add(const float *a, const float *b, float *c, long count) {
    long step = (long)gridDim.x * blockDim.x;
    for (long i = (long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) c[i] = a[i] + b[i];
}

/* Each block makes a tile of c from tiles of a and b that its threads share; the edge is padded with zeros. */
__global__ void multiply(const float *a, const float *b, float *c, int n) {
    __shared__ float left[TILE][TILE], right[TILE][TILE];
    int x = threadIdx.x, y = threadIdx.y;
    int column = blockIdx.x * TILE + x, row = blockIdx.y * TILE + y;
    float sum = 0;
    for (int at = 0; at < n; at += TILE) {
        left[y][x] = row < n && at + x < n ? a[(long)row * n + at + x] : 0;
        right[y][x] = column < n && at + y < n ? b[(long)(at + y) * n + column] : 0;
        __syncthreads();
        for (int k = 0; k < TILE; k++) sum += left[y][k] * right[k][x];
        __syncthreads();
    }
    if (row < n && column < n) c[(long)row * n + column] = sum;
}

int main(int argc, char **argv) {
    int n = size_of(argc, argv, 1024);
    size_t bytes = sizeof(float) * n * n;
    float *a = (float *)malloc(bytes), *b = (float *)malloc(bytes), *c = (float *)malloc(bytes);
    float *da, *db, *dc;
    if (!a || !b || !c) {
        fprintf(stderr, "no memory for matrices of %zu bytes\n", bytes);
        return 1;
    }
    fill(a, n, 1);
    fill(b, n, 2);
    CHECK(cudaMalloc(&da, bytes));
    CHECK(cudaMalloc(&db, bytes));
    CHECK(cudaMalloc(&dc, bytes));
    CHECK(cudaMemcpy(da, a, bytes, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(db, b, bytes, cudaMemcpyHostToDevice));
    cudaDeviceProp device;
    CHECK(cudaGetDeviceProperties(&device, 0));
    int bad = 0;

    double began = now_ms();
    add<<<256, 256>>>(da, db, dc, (long)n * n);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    double took = now_ms() - began;
    CHECK(cudaMemcpy(c, dc, bytes, cudaMemcpyDeviceToHost));
    bad |= report("add", device.name, n, took, checksum(c, n), wrong_sums(a, b, c, n));

    dim3 block(TILE, TILE), grid((n + TILE - 1) / TILE, (n + TILE - 1) / TILE);
    began = now_ms();
    multiply<<<grid, block>>>(da, db, dc, n);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    took = now_ms() - began;
    CHECK(cudaMemcpy(c, dc, bytes, cudaMemcpyDeviceToHost));
    bad |= report("multiply", device.name, n, took, checksum(c, n), wrong_products(a, b, c, n, 10));
    return bad;
}
