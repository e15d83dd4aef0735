/* A kernel in a few lines, one row of A after the other. librows.so becomes spmm_csr_f32_rows:
 *
 *   cc -O3 -march=native -shared -fPIC -I "$(zeroskip list plugins --include)" rows.c -o librows.so
 *   zeroskip list kernels --plugin librows.so
 *   ZEROSKIP_PLUGINS=librows.so zeroskip bench spmm --peers auto,rows
 */
#include <zeroskip_plugin.h>

ZEROSKIP_PLUGIN

int zeroskip_spmm(const zeroskip_csr *a, void *prepared, const float *x, int64_t n, float *out, int32_t threads) {
    (void)prepared;
    (void)threads;
    for (int64_t row = 0; row < a->rows; row++) {
        float *restrict c = out + row * n;
        for (int64_t j = 0; j < n; j++) c[j] = 0.0f;
        for (int64_t at = a->indptr[row]; at < a->indptr[row + 1]; at++) {
            const float *b = x + (int64_t)a->indices[at] * n;
            for (int64_t j = 0; j < n; j++) c[j] += a->data[at] * b[j];
        }
    }
    return ZEROSKIP_OK;
}
