/* tensor_int.h - what the files of this room share; other rooms include tensor.h. */
#ifndef GIST_TENSOR_INT_H
#define GIST_TENSOR_INT_H

#include "tensor/tensor.h"

/* n elements, a multiple of the block, of one of the block types; src and dst need not be aligned.  Contracts as for
 * dt_to_f32 and dt_from_f32, which are what other rooms call. */
void block_to_f32(float *dst, const void *src, dtype t, size_t n);
void block_from_f32(void *dst, dtype t, const float *src, size_t n);

#endif
