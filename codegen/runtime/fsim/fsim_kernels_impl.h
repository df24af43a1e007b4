/*!
 * \file fsim_kernels_impl.h
 * \brief Source of every set of kernels. Includes nothing with code of its own but intrinsics, so that no function of a
 *        wider instruction set can be taken by the linker for one that all processors can run.
 *
 * A file that includes it defines AHCQ_FSIM_NAME and is compiled with the options of its level.
 */
#include <limits.h>
#include <stdint.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "fsim_kernels.h"

namespace ahcq {
namespace fsim {
namespace {

constexpr int32_t kLogitMax = (1 << (isa::kLogitBits - 1)) - 1;
constexpr int32_t kMasked = -(1 << (isa::kLogitBits - 1));
constexpr int64_t kMaxShift = 55;

// Vectors of int32 sums: how many, a broadcast of a pair of operands, and multiply-add of pairs of int16.
#if defined(__AVX512VNNI__)
struct Wide {
  static constexpr int kLanes = 16, kRows = 8;
  __m512i v;
  static Wide Load(const int32_t* at) { return {_mm512_loadu_si512(at)}; }
  static Wide Zero() { return {_mm512_setzero_si512()}; }
  void Add(Wide weights, int32_t pair) { v = _mm512_dpwssd_epi32(v, weights.v, _mm512_set1_epi32(pair)); }
  void Store(int32_t* at) const { _mm512_storeu_si512(at, v); }
};
#elif defined(__AVX2__)
struct Wide {
  static constexpr int kLanes = 8, kRows = 4;
  __m256i v;
  static Wide Load(const int32_t* at) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))}; }
  static Wide Zero() { return {_mm256_setzero_si256()}; }
  void Add(Wide weights, int32_t pair) {
    v = _mm256_add_epi32(v, _mm256_madd_epi16(weights.v, _mm256_set1_epi32(pair)));
  }
  void Store(int32_t* at) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), v); }
};
#endif
#if defined(__SSE2__)
struct Narrow {
  static constexpr int kLanes = 4, kRows = 8;
  __m128i v;
  static Narrow Load(const int32_t* at) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))}; }
  static Narrow Zero() { return {_mm_setzero_si128()}; }
  void Add(Narrow weights, int32_t pair) { v = _mm_add_epi32(v, _mm_madd_epi16(weights.v, _mm_set1_epi32(pair))); }
  void Store(int32_t* at) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(at), v); }
};
#else
/*! \brief The same in plain C++, for the compiler to vectorise. */
struct Narrow {
  static constexpr int kLanes = 4, kRows = 4;
  uint32_t v[kLanes];
  static Narrow Load(const int32_t* at) {
    Narrow out;
    for (int i = 0; i < kLanes; ++i) out.v[i] = static_cast<uint32_t>(at[i]);
    return out;
  }
  static Narrow Zero() { return {{0, 0, 0, 0}}; }
  void Add(Narrow weights, int32_t pair) {
    for (int i = 0; i < kLanes; ++i) {
      const int32_t weight = static_cast<int32_t>(weights.v[i]);
      v[i] += static_cast<uint32_t>(static_cast<int16_t>(weight) * static_cast<int16_t>(pair) +
                                    (weight >> 16) * (pair >> 16));
    }
  }
  void Store(int32_t* at) const {
    for (int i = 0; i < kLanes; ++i) at[i] = static_cast<int32_t>(v[i]);
  }
};
#endif
#if !defined(__AVX2__)
using Wide = Narrow;
#endif

/*! \brief Sizes of a product of operands and packed weights. */
struct Shape {
  uint64_t pitch;
  uint32_t steps, rows, dim;
  bool accumulate;
};

/*! \brief kRows rows of kVectors vectors: held in registers over all steps. */
template <typename Vector, int kVectors, int kRows>
inline void MultiplyRows(const int16_t* operands, const int32_t* packed, const Shape& shape, int32_t* acc) {
  const uint32_t dim = shape.dim;
  Vector sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVectors; ++c) {
      sum[r][c] = shape.accumulate ? Vector::Load(acc + r * dim + c * Vector::kLanes) : Vector::Zero();
    }
  }
  for (uint32_t s = 0; s < shape.steps; ++s) {
    const int16_t* row = operands + s * shape.pitch;
    for (uint32_t i = 0; i < dim; i += 2, packed += dim) {
      for (int c = 0; c < kVectors; ++c) {
        const Vector weights = Vector::Load(packed + c * Vector::kLanes);
        for (int r = 0; r < kRows; ++r) {
          int32_t pair;
          __builtin_memcpy(&pair, row + r * dim + i, sizeof pair);
          sum[r][c].Add(weights, pair);
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVectors; ++c) sum[r][c].Store(acc + r * dim + c * Vector::kLanes);
  }
}

template <typename Vector, int kVectors>
void MultiplyWords(const int16_t* operands, const int32_t* packed, const Shape& shape, int32_t* acc) {
  constexpr uint32_t kRows = Vector::kRows;
  const uint32_t dim = shape.dim;
  uint32_t row = 0;
  for (; row + kRows <= shape.rows; row += kRows) {
    MultiplyRows<Vector, kVectors, kRows>(operands + row * dim, packed, shape, acc + row * dim);
  }
  for (; row < shape.rows; ++row) {
    MultiplyRows<Vector, kVectors, 1>(operands + row * dim, packed, shape, acc + row * dim);
  }
}

void Multiply(const int16_t* operands, uint64_t pitch, const int32_t* packed, uint32_t steps, uint32_t rows,
              uint32_t dim, int32_t* acc, bool accumulate) {
  const Shape shape = {pitch, steps, rows, dim, accumulate};
  // columns in strips of at most two vectors
  constexpr uint32_t kTwo = 2 * Wide::kLanes, kOne = Wide::kLanes;
  for (uint32_t c = 0; c < dim;) {
    if (dim - c >= kTwo) {
      MultiplyWords<Wide, 2>(operands, packed + c, shape, acc + c);
      c += kTwo;
    } else if (dim - c >= kOne) {
      MultiplyWords<Wide, 1>(operands, packed + c, shape, acc + c);
      c += kOne;
    } else {
      MultiplyWords<Narrow, 1>(operands, packed + c, shape, acc + c);
      c += Narrow::kLanes;
    }
  }
}

void Decode(const uint8_t* codes, const int16_t* table, int16_t* operands, uint64_t count) {
  uint64_t i = 0;
#if defined(__AVX512BW__)
  // with a full mask, as GCC 12 takes the plain form for a use of an uninitialised value
  const __m512i entries =
      _mm512_maskz_broadcast_i64x4(0xff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table)));
  for (; i + 32 <= count; i += 32) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i));
    _mm512_storeu_si512(operands + i, _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(bytes), entries));
  }
#endif
  for (; i < count; ++i) operands[i] = table[codes[i]];
}

inline int32_t Pair(int32_t low, int32_t high) {
  return static_cast<int32_t>((static_cast<uint32_t>(low) & 0xffff) | static_cast<uint32_t>(high) << 16);
}

void Pack(const uint8_t* tile, const uint8_t* zero, bool transpose, uint32_t dim, int32_t* packed) {
  if (!transpose) {
    for (uint32_t p = 0; p < dim / 2; ++p) {
      const uint8_t* first = tile + 2 * p * dim;
      for (uint32_t o = 0; o < dim; ++o) packed[p * dim + o] = Pair(first[o] - zero[o], first[dim + o] - zero[o]);
    }
    return;
  }
  for (uint32_t o = 0; o < dim; ++o) {
    for (uint32_t p = 0; p < dim / 2; ++p) {
      packed[p * dim + o] = Pair(tile[o * dim + 2 * p] - zero[o], tile[o * dim + 2 * p + 1] - zero[o]);
    }
  }
}

/*! \brief Codes of numbers. */
inline void Encode(const int32_t* values, uint32_t count, const Encoder& encoder, uint8_t* codes) {
  constexpr uint32_t kChunk = 64;
  uint32_t index[kChunk];
  for (uint32_t from = 0; from < count; from += kChunk) {
    const uint32_t size = count - from < kChunk ? count - from : kChunk;
    for (uint32_t i = 0; i < kChunk; ++i) index[i] = 0;
    if (encoder.ascending) {
      for (int32_t t = 0; t < encoder.used; ++t) {
        const int32_t threshold = encoder.thresholds[t];
        for (uint32_t i = 0; i < size; ++i) index[i] += values[from + i] > threshold ? 1 : 0;
      }
    } else {
      for (uint32_t i = 0; i < size; ++i) {
        for (uint32_t step = 16; step != 0; step >>= 1) {
          if (values[from + i] > encoder.thresholds[index[i] + step - 1]) index[i] += step;
        }
      }
    }
    for (uint32_t i = 0; i < size; ++i) codes[from + i] = encoder.codes[index[i]];
  }
}

void Scale(const ScaleBlock& block, uint32_t rows, uint32_t dim, const Encoder& encoder) {
  constexpr uint32_t kMaxDim = 64;
  int64_t mantissa[kMaxDim], shift[kMaxDim], half[kMaxDim], bias[kMaxDim];
  for (uint32_t o = 0; o < dim; ++o) {
    const uint32_t scale = static_cast<uint32_t>(block.scales[o]);
    mantissa[o] = static_cast<int32_t>(scale << (32 - isa::kMantissaBits)) >> (32 - isa::kMantissaBits);
    const int64_t given = scale >> isa::kMantissaBits & 63;
    shift[o] = given > kMaxShift ? kMaxShift : given;
    half[o] = shift[o] > 0 ? int64_t{1} << (shift[o] - 1) : 0;
    bias[o] = block.bias != nullptr ? block.bias[o] : 0;
  }
  const int64_t pre_half = block.pre > 0 ? int64_t{1} << (block.pre - 1) : 0;
  for (uint32_t row = 0; row < rows; ++row) {
    const int32_t* acc = block.acc + row * dim;
    int64_t wide[kMaxDim];
    int32_t numbers[kMaxDim];
    for (uint32_t o = 0; o < dim; ++o) {
      wide[o] = ((((acc[o] + pre_half) >> block.pre) * mantissa[o] + half[o]) >> shift[o]) + bias[o];
    }
    if (block.addend != nullptr) {
      for (uint32_t o = 0; o < dim; ++o) wide[o] += block.addend[row * dim + o];
    }
    for (uint32_t o = 0; o < dim; ++o) {
      const int64_t high = wide[o] > INT32_MAX ? INT32_MAX : wide[o];
      numbers[o] = static_cast<int32_t>(high < INT32_MIN ? INT32_MIN : high);
    }
    if (block.codes != nullptr) {
      Encode(numbers, dim, encoder, block.codes + row * dim);
    } else {
      for (uint32_t o = 0; o < dim; ++o) block.numbers[row * dim + o] = numbers[o];
    }
  }
}

int32_t Logit(const LogitRow& row, uint32_t dim) {
  int32_t greatest = kMasked;
  const int64_t pre_half = row.pre > 0 ? int64_t{1} << (row.pre - 1) : 0;
  const int64_t half = row.shift > 0 ? int64_t{1} << (row.shift - 1) : 0;
  for (uint32_t block = 0; block < row.blocks; ++block) {
    const int32_t* acc = row.acc + block * row.acc_block;
    const int32_t* rel_w = row.rel_w != nullptr ? row.rel_w + block * dim : nullptr;
    int32_t* out = row.out + block * dim;
    for (uint32_t key = 0; key < dim; ++key) {
      const int64_t rel = rel_w != nullptr ? rel_w[key] : 0;
      const int64_t wide = ((acc[key] + pre_half) >> row.pre) * row.mult + rel + row.rel_h;
      int64_t t = (wide + half) >> row.shift;
      t = t > kLogitMax ? kLogitMax : t;
      out[key] = static_cast<int32_t>(t < -kLogitMax ? -kLogitMax : t);
    }
    if (block + 1 == row.blocks) {
      for (uint32_t key = row.valid; key < dim; ++key) out[key] = kMasked;
    }
    for (uint32_t key = 0; key < dim; ++key) greatest = out[key] > greatest ? out[key] : greatest;
  }
  return greatest;
}

void Prob(const int32_t* logits, uint32_t count, int32_t greatest, const Encoder& encoder, uint8_t* codes) {
  constexpr uint32_t kChunk = 64;
  int32_t values[kChunk];
  for (uint32_t from = 0; from < count; from += kChunk) {
    const uint32_t size = count - from < kChunk ? count - from : kChunk;
    for (uint32_t i = 0; i < size; ++i) values[i] = logits[from + i] - greatest;
    Encode(values, size, encoder, codes + from);
  }
}

void Unpack(const uint8_t* bytes, uint64_t count, uint8_t* codes) {
  for (uint64_t i = 0; i < count; ++i) {
    codes[2 * i] = bytes[i] & 15;
    codes[2 * i + 1] = bytes[i] >> 4;
  }
}

void Repack(const uint8_t* codes, uint64_t count, uint8_t* bytes) {
  for (uint64_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
}

constexpr Kernels kKernels = {AHCQ_FSIM_NAME, Decode, Pack, Multiply, Scale, Logit, Prob, Unpack, Repack};

}  // namespace
}  // namespace fsim
}  // namespace ahcq
