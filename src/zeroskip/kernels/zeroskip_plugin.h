/* A kernel for zeroskip in a shared library: C[rows, n] = A[rows, columns] * X[columns, n], A sparse, in float32.
 *
 * Compile with `-shared -fPIC -I "$(zeroskip list plugins --include)"` and name the file in ZEROSKIP_PLUGINS, or
 * behind `zeroskip list kernels --plugin`. lib<name>.so is the kernel spmm_csr_f32_<name>.
 *
 * A library writes ZEROSKIP_PLUGIN once and defines zeroskip_spmm. The other functions may be left out. All arrays are
 * row-major, without gaps, and belong to the caller; those of A stay where they are and unchanged until
 * zeroskip_release. Nothing but `out` may be written. Calls come one at a time, from any thread.
 */
#ifndef ZEROSKIP_PLUGIN_H
#define ZEROSKIP_PLUGIN_H

#include <stdint.h>

#define ZEROSKIP_PLUGIN_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

/* What functions return. Any other value is a failure, too, and is told as it is. */
enum {
  ZEROSKIP_OK = 0,
  ZEROSKIP_UNSUPPORTED = 1, /* this matrix, or this n, is not taken */
  ZEROSKIP_NO_MEMORY = 2,
  ZEROSKIP_FAILED = 3
};

/* CSR. Row i has the entries indptr[i] to indptr[i + 1] - 1; its columns increase and none is there twice. */
typedef struct {
  int64_t rows, columns, nnz;
  const int64_t* indptr;  /* rows + 1 */
  const int32_t* indices; /* nnz, each in [0, columns) */
  const float* data;      /* nnz */
} zeroskip_csr;

/* The version that the library was compiled for. */
extern const int32_t zeroskip_plugin_abi;
#define ZEROSKIP_PLUGIN const int32_t zeroskip_plugin_abi = ZEROSKIP_PLUGIN_ABI;

/* Write every element of out (rows, n); x is (columns, n). `prepared` is what zeroskip_prepare made, else NULL. */
int zeroskip_spmm(const zeroskip_csr* a, void* prepared, const float* x, int64_t n, float* out, int32_t threads);

/* Optional: pack A once. Sets *prepared, and *bytes to what it takes. */
int zeroskip_prepare(const zeroskip_csr* a, int32_t threads, void** prepared, int64_t* bytes);

/* Optional: free what zeroskip_prepare made. */
void zeroskip_release(void* prepared);

/* Optional: NULL where the kernel runs on this machine, else the reason, in a string that stays. */
const char* zeroskip_why_not(void);

#ifdef __cplusplus
}
#endif
#endif
