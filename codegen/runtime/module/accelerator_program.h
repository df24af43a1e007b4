/*!
 * \file accelerator_program.h
 * \brief What codegen/lower/program_image.py writes: instruction streams, constants, and how tensors lie in device
 * memory.
 */
#ifndef AHCQ_ACCELERATOR_PROGRAM_H_
#define AHCQ_ACCELERATOR_PROGRAM_H_

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace ahcq {

/*! \brief Bytes that are no programs, or damaged ones. */
class ProgramImageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/*!
 * \brief uint8 codes that go to the device as `(batch, block, place, dim)`, 4 bits each.
 *
 * Codes of more bits go as halves: each part of the blocks, all of one size, has a table that says which half it takes.
 *
 * The whole tensor is `(total, channels)`; run r of a program takes `batch * rows` of these rows from
 * `r * batch * rows` on. Rows behind the last are code 0. Of an operator whose work grows with the prompts, the
 * tensor has any number of times `total` rows: those of a prompt, or a single one.
 */
struct InputLayout {
  uint64_t address;
  uint32_t total, batch, rows, channels, blocks, dim;
  std::vector<int32_t> row_at;     /*!< row of a batch in each place; -1: code 0 */
  std::vector<int32_t> channel_at; /*!< channel in each of blocks * dim places; -1 - c: code c in every row */
  /*! Of each part of the blocks, code of each value; above 15: no value of this tensor. */
  std::vector<std::array<uint8_t, 256>> code_of;

  size_t Elements() const { return size_t{total} * channels; }
  size_t DeviceBytes() const { return size_t{batch} * row_at.size() * channel_at.size() / 2; }
  /*! \brief Codes of a run, of a tensor of `all` rows. \throws ProgramImageError for a value that has no code. */
  std::vector<uint8_t> Pack(const uint8_t* codes, size_t run, size_t all) const;
};

/*! \brief Where the sums of a channel group lie: so many bits of a word, sign included, from an offset on. */
struct SumField {
  uint32_t word, offset, bits;
};

/*!
 * \brief Sums `(word, batch, block, place, dim)` on the device that become float32 rows `(total, channels)`.
 *
 * A word is the sum of its groups' sums, each shifted to its offset. y = bias, then for each group
 * y = fma(sum + correction, multiplier, y), as the host's kernels do it: equal in every bit. With a divisor of 1 or -1,
 * the column behind the channels holds 1 or -1 times a number by which the multipliers of its row are divided first.
 */
struct OutputLayout {
  uint64_t address;
  uint32_t total, batch, rows, channels, blocks, dim, words;
  std::vector<int32_t> row_at;     /*!< row of a batch in each place; -1: padding */
  std::vector<SumField> fields;    /*!< of each group, in the order in which they are added up */
  std::vector<float> multiplier;   /*!< (groups, channels) */
  std::vector<float> bias;         /*!< (channels) */
  std::vector<int32_t> correction; /*!< (groups, channels) */
  int32_t divisor;                 /*!< 0: none */

  size_t Elements() const { return size_t{total} * channels; }
  size_t DeviceBytes() const { return size_t{4} * words * batch * blocks * row_at.size() * dim; }
  /*! \brief Puts the rows of a run where they belong in a tensor of `all` rows. */
  void Unpack(const int32_t* sums, size_t run, size_t all, float* values) const;

 private:
  void UnpackRow(const int32_t* sums, size_t batch_index, size_t place, float* to) const;
};

struct AcceleratorFunction {
  std::string name;
  uint64_t program; /*!< offset in `constants` */
  uint32_t length;  /*!< instructions */
  uint32_t runs;    /*!< of the program, one for each part of the rows; of `total` of them */
  bool batched;     /*!< tensors hold any number of times `total` rows, which only a call says */
  std::vector<InputLayout> inputs;
  OutputLayout output;

  /*! \brief Runs that take `repeats` times `total` rows; they need not end where a prompt does. */
  size_t Runs(size_t repeats) const;
};

/*! \brief All that was offloaded from one module. */
struct AcceleratorPrograms {
  std::string config;
  uint32_t config_hash;
  uint64_t scratch_bytes; /*!< addresses from 0; constants lie behind it */
  std::vector<AcceleratorFunction> functions;
  std::string constants;

  /*! \throws ProgramImageError for anything but what the Python side wrote, whole. */
  static AcceleratorPrograms Parse(const char* data, size_t size);
  uint64_t MemoryBytes() const { return scratch_bytes + constants.size(); }
};

}  // namespace ahcq

#endif  // AHCQ_ACCELERATOR_PROGRAM_H_
