/* Stands in for CUDA where a source is tried without a graphics processor: the threads of a block are threads of this processor,
 * and blocks come one after the other. Shows whether kernels compute what they should, and wait for each other where they
 * must; nothing about how fast, or about memory that real threads see differently. */
#pragma once
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    unsigned count() const { return x * y * z; }
    dim3 at(unsigned n) const { return dim3(n % x, n / x % y, n / x / y); }
};

static thread_local dim3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static std::barrier<> *everybody;

#define __global__ static
#define __shared__ static
static inline void __syncthreads() { everybody->arrive_and_wait(); }

template <class Kernel> void launch(dim3 grid, dim3 block, Kernel kernel) {
    std::barrier<> all(block.count());
    gridDim = grid, blockDim = block, everybody = &all;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < block.count(); t++) {
        threads.emplace_back([&, t] {
            threadIdx = block.at(t);
            for (unsigned b = 0; b < grid.count(); b++) {
                blockIdx = grid.at(b);
                kernel();
                /* What a block shares is the next one's after all of it have ended. */
                all.arrive_and_wait();
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
}

enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation };
enum { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
struct cudaDeviceProp {
    char name[256];
};
template <class T> cudaError_t cudaMalloc(T **to, size_t bytes) {
    return (*to = (T *)malloc(bytes)) ? cudaSuccess : cudaErrorMemoryAllocation;
}
static inline cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, int) {
    memcpy(to, from, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *of, int) {
    strcpy(of->name, "threads");
    return cudaSuccess;
}
static inline cudaError_t cudaGetLastError() { return cudaSuccess; }
static inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
static inline const char *cudaGetErrorString(cudaError_t) { return "no memory"; }
