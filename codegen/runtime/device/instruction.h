/*!
 * \file instruction.h
 * \brief Instructions as the decoder sees them: fields, and the checks before dispatch (SPEC 6).
 */
#ifndef AHCQ_INSTRUCTION_H_
#define AHCQ_INSTRUCTION_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../../isa/generated/ahcq_isa.h"

namespace ahcq {

/*! \brief The 256 bits of an instruction. */
class Instruction {
 public:
  static constexpr size_t kBytes = 32;

  explicit Instruction(const uint8_t* bytes) { std::memcpy(words_, bytes, kBytes); }

  /*! \brief A field, unsigned. */
  uint32_t operator[](isa::Field field) const {
    if (field.width == 0) return 0;
    const int word = field.bit / 64, bit = field.bit % 64;
    uint64_t value = words_[word] >> bit;
    if (bit + field.width > 64) value |= words_[word + 1] << (64 - bit);
    return static_cast<uint32_t>(value & ((uint64_t{1} << field.width) - 1));
  }
  isa::Opcode opcode() const { return static_cast<isa::Opcode>(words_[0] & 15); }
  /*! \brief Units that it takes a token from; one bit each. */
  uint32_t pop() const { return words_[0] >> 4 & 15; }
  /*! \brief Units that it gives a token to. */
  uint32_t push() const { return words_[0] >> 8 & 15; }
  /*! \brief Whether any bit from `first` on is set. */
  bool AnyFrom(int first) const;

 private:
  uint64_t words_[4];
};

/*! \brief Bytes of external memory that a program may touch. */
struct Window {
  uint64_t first, end;
};

/*! \brief What the decoder knows of an opcode; null if there is no such instruction. */
const isa::Entry* FindEntry(isa::Opcode opcode);

/*! \brief The first error of an instruction. */
isa::Error Check(const Instruction& instruction, const isa::Config& config, Window window);

/*! \brief Words of a scratchpad, or chunks of a table. */
uint32_t DepthOf(const isa::Config& config, uint32_t memory);

/*! \brief Configuration of that name, or with that hash; null if there is none. */
const isa::Config* FindConfig(const char* name);
const isa::Config* FindConfig(uint32_t hash);

/*!
 * \brief Moves a program's external addresses: adds `delta` to those of every LOAD and STORE.
 *
 * Programs are made for memory from address 0; a driver that places their data elsewhere calls this before it copies
 * the program in. An address that leaves the memory in doing so is found by the device's own check.
 */
void Relocate(uint8_t* program, size_t length, uint32_t delta);

}  // namespace ahcq

#endif  // AHCQ_INSTRUCTION_H_
