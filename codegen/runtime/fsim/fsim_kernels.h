/*!
 * \file fsim_kernels.h
 * \brief The inner loops of the functional simulator, one set for each level of vector instructions.
 *
 * Each level is the same source, fsim_kernels_impl.h, compiled with other options. Word counts are in words of Dim.
 */
#ifndef AHCQ_FSIM_KERNELS_H_
#define AHCQ_FSIM_KERNELS_H_

#include <cstdint>

#include "../../isa/generated/ahcq_isa.h"

namespace ahcq {
namespace fsim {

/*! \brief The interval encoder. */
struct Encoder {
  int32_t thresholds[32];  // the last is unused
  uint8_t codes[32];
  bool ascending;  // so that the interval is the number of thresholds exceeded
  int32_t used;    // thresholds before the run of INT32_MAX at the end, which nothing exceeds
};

/*! \brief Where the words of one column block of a SCALE lie. */
struct ScaleBlock {
  const int32_t* acc;
  const int32_t* scales;  // one word
  const int32_t* bias;    // one word, or null
  const int32_t* addend;  // a word a row, or null
  int32_t* numbers;       // one of the two results
  uint8_t* codes;
  uint32_t pre;
};

/*! \brief One row of a LOGIT. */
struct LogitRow {
  const int32_t* acc;
  uint64_t acc_block;    // elements from one column block to the next
  const int32_t* rel_w;  // a word a block, or null
  int64_t rel_h;
  int32_t* out;
  uint32_t blocks, valid, pre, shift;
  int64_t mult;
};

struct Kernels {
  const char* name;
  /*! \brief Operands of codes through a table of 16. */
  void (*decode)(const uint8_t* codes, const int16_t* table, int16_t* operands, uint64_t count);
  /*! \brief A tile of weights, less its zero points, as pairs of inputs: (Dim / 2, Dim) of 2 x int16. */
  void (*pack)(const uint8_t* tile, const uint8_t* zero, bool transpose, uint32_t dim, int32_t* packed);
  /*!
   * \brief acc[row] (+)= sum over steps of operands[step][row] . packed[step], modulo 2**32.
   * \param operands words of Dim; `pitch` elements from one step to the next.
   */
  void (*multiply)(const int16_t* operands, uint64_t pitch, const int32_t* packed, uint32_t steps, uint32_t rows,
                   uint32_t dim, int32_t* acc, bool accumulate);
  void (*scale)(const ScaleBlock& block, uint32_t rows, uint32_t dim, const Encoder& encoder);
  /*! \brief Greatest logit of the row. */
  int32_t (*logit)(const LogitRow& row, uint32_t dim);
  /*! \brief Codes of logit - greatest. */
  void (*prob)(const int32_t* logits, uint32_t count, int32_t greatest, const Encoder& encoder, uint8_t* codes);
  void (*unpack)(const uint8_t* bytes, uint64_t count, uint8_t* codes);
  void (*repack)(const uint8_t* codes, uint64_t count, uint8_t* bytes);
};

/*! \brief The best set that this processor can execute. */
const Kernels& BestKernels();
/*! \brief The set of that name ("generic", "avx2", "avx512vnni"); null if it is not there, or cannot run here. */
const Kernels* FindKernels(const char* name);

}  // namespace fsim
}  // namespace ahcq

#endif  // AHCQ_FSIM_KERNELS_H_
