/* model_int.h - the weight table: one row per tensor, executed for loading, saving, checking and counting.
 *
 * A row names the field of the family's structs, the tensor's name in GGUF and in Hugging Face files ("%d" is the
 * layer), and its shape in the letters of tensor.h's alphabet, with q = H*D and k = G*D.
 */
#ifndef GIST_MODEL_INT_H
#define GIST_MODEL_INT_H

#include "model/model.h"

typedef enum weight_kind { WEIGHT_MATRIX, WEIGHT_VECTOR, WEIGHT_EMBED } weight_kind;

typedef struct weight_row {
    weight_kind kind;
    bool per_layer;
    size_t offset;          /* of the field: op_weight for a matrix, float * for a vector; in llama_layer or llama_model */
    const char *gguf, *hf;
    char shape[3];          /* "VC", "qC", "C" */
} weight_row;

extern const weight_row llama_weights[];
extern const int llama_weight_rows;

/* Size behind a shape letter. */
int llama_dim(const llama_config *c, char letter);
/* The tied head has no tensor of its own. */
bool llama_has_row(const llama_config *c, const weight_row *r);

#endif
