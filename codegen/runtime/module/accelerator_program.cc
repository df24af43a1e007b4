/*!
 * \file accelerator_program.cc
 * \brief Reads programs, and moves tensors between the host's layout and the device's.
 */
#include "accelerator_program.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

namespace ahcq {
namespace {

constexpr char kMagic[] = "AHCQACC";  // with its final zero, 8 bytes
/*! \brief The only one that is read: programs of earlier ones are of another instruction set. */
constexpr uint32_t kVersion = 4;
constexpr uint32_t kMostParts = 2;
constexpr int32_t kNoRow = -1, kLastCode = 15;
constexpr size_t kInstructionBytes = 32;
/*! \brief More than any tensor of ours has; keeps products of sizes within 64 bits. */
constexpr uint32_t kLargest = 1u << 20;

class Reader {
 public:
  Reader(const char* data, size_t size) : at_(data), end_(data + size) {}

  template <typename Number>
  Number Next() {
    Number value;
    std::memcpy(&value, Take(sizeof value), sizeof value);
    return value;
  }
  uint32_t Size() {
    const uint32_t value = Next<uint32_t>();
    if (value == 0 || value > kLargest) throw ProgramImageError("a size is out of range");
    return value;
  }
  std::string Text() {
    const uint32_t size = Next<uint32_t>();
    return std::string(Take(size), size);
  }
  std::vector<int32_t> Places(uint32_t count, uint32_t limit, int32_t least) {
    std::vector<int32_t> values(count);
    std::memcpy(values.data(), Take(size_t{count} * 4), size_t{count} * 4);
    for (int32_t value : values) {
      if (value < least || value >= static_cast<int64_t>(limit)) throw ProgramImageError("a place is out of range");
    }
    return values;
  }
  template <typename Number>
  std::vector<Number> Numbers(uint64_t count) {
    static_assert(sizeof(Number) == 4);
    if (count > Left() / 4) throw ProgramImageError("they end too early");
    std::vector<Number> values(count);
    std::memcpy(values.data(), Take(count * 4), count * 4);
    return values;
  }
  size_t Left() const { return static_cast<size_t>(end_ - at_); }
  const char* Take(size_t bytes) {
    if (bytes > Left()) throw ProgramImageError("they end too early");
    const char* taken = at_;
    at_ += bytes;
    return taken;
  }

 private:
  const char* at_;
  const char* end_;
};

/*! \brief CRC-32 as zlib computes it. */
uint32_t Checksum(const char* data, size_t size) {
  std::array<uint32_t, 256> table;
  for (uint32_t i = 0; i < table.size(); ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) table[i] = table[i] >> 1 ^ (table[i] & 1 ? UINT32_C(0xedb88320) : 0);
  }
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < size; ++i) crc = crc >> 8 ^ table[(crc ^ static_cast<uint8_t>(data[i])) & 255];
  return ~crc;
}

// In hardware where there is an instruction for it, chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("fma", "default")))
#endif
void MultiplyAdd(const int32_t* words, uint32_t carries, SumField field, const int32_t* correction,
                 const float* multiplier, float* values, uint32_t count) {
  const uint32_t half = UINT32_C(1) << (field.bits - 1), mask = half | (half - 1);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t sum = ((static_cast<uint32_t>(words[i]) + carries) >> field.offset & mask) - half +
                         static_cast<uint32_t>(correction[i]);
    values[i] = std::fma(static_cast<float>(static_cast<int32_t>(sum)), multiplier[i], values[i]);
  }
}

/*! \brief Code in a place: of a channel of a row, or the same in all rows; 0 where there is no row. */
uint8_t CodeAt(const std::array<uint8_t, 256>& codes_of, const uint8_t* row, int32_t channel) {
  if (row == nullptr) return 0;
  return channel < 0 ? static_cast<uint8_t>(-1 - channel) : codes_of[row[channel]];
}

void CheckScratch(uint64_t address, size_t bytes, uint64_t scratch) {
  if (bytes > scratch || address > scratch - bytes) throw ProgramImageError("a tensor lies outside of its memory");
}

InputLayout ReadInput(Reader* reader, uint64_t scratch) {
  InputLayout input{};
  input.address = reader->Next<uint64_t>();
  for (uint32_t* field : {&input.total, &input.batch, &input.rows, &input.channels, &input.blocks, &input.dim}) {
    *field = reader->Size();
  }
  const uint32_t places = reader->Size();
  if (uint64_t{input.blocks} * input.dim > kLargest || input.dim % 2) throw ProgramImageError("a size is out of range");
  input.row_at = reader->Places(places, input.rows, kNoRow);
  input.channel_at = reader->Places(input.blocks * input.dim, input.channels, -1 - kLastCode);
  const uint32_t parts = reader->Size();
  if (parts > kMostParts || input.blocks % parts) throw ProgramImageError("a size is out of range");
  input.code_of.resize(parts);
  for (auto& codes : input.code_of) std::memcpy(codes.data(), reader->Take(codes.size()), codes.size());
  CheckScratch(input.address, input.DeviceBytes(), scratch);
  return input;
}

/*! \brief Whether sums, and what they are divided by, are whole words. */
void CheckDivisor(const OutputLayout& output) {
  const bool whole = output.fields.size() == 1 && output.words == 1 && output.fields[0].bits == 32;
  if (!whole || output.divisor < -1 || output.divisor > 1) throw ProgramImageError("a divisor is out of range");
}

OutputLayout ReadOutput(Reader* reader, uint64_t scratch) {
  OutputLayout output{};
  output.address = reader->Next<uint64_t>();
  for (uint32_t* field :
       {&output.total, &output.batch, &output.rows, &output.channels, &output.blocks, &output.dim, &output.words}) {
    *field = reader->Size();
  }
  const uint32_t places = reader->Size(), groups = reader->Size();
  output.row_at = reader->Places(places, output.rows, kNoRow);
  for (uint32_t group = 0; group < groups; ++group) {
    const SumField field{reader->Next<uint32_t>(), reader->Next<uint32_t>(), reader->Next<uint32_t>()};
    const bool inside = field.bits >= 1 && field.bits <= 32 && field.offset <= 32 - field.bits;
    if (field.word >= output.words || !inside) throw ProgramImageError("a field is out of range");
    output.fields.push_back(field);
  }
  const uint64_t numbers = uint64_t{groups} * output.channels;
  output.multiplier = reader->Numbers<float>(numbers);
  output.bias = reader->Numbers<float>(output.channels);
  const bool corrected = reader->Next<uint32_t>() != 0;
  output.correction = corrected ? reader->Numbers<int32_t>(numbers) : std::vector<int32_t>(numbers);
  output.divisor = reader->Next<int32_t>();
  if (output.divisor != 0) CheckDivisor(output);
  const uint64_t columns = uint64_t{output.channels} + (output.divisor != 0 ? 1 : 0);
  if (columns > uint64_t{output.blocks} * output.dim) throw ProgramImageError("a result is larger than its memory");
  CheckScratch(output.address, output.DeviceBytes(), scratch);
  return output;
}

/*! \brief Whether so many runs take all rows of a tensor, and each of them some. */
void CheckRuns(uint32_t runs, uint32_t total, uint32_t batch, uint32_t rows) {
  const uint64_t one = uint64_t{batch} * rows;
  if (one > kLargest || runs != (total + one - 1) / one)
    throw ProgramImageError("a program has a wrong number of runs");
}

/*! \brief Whether inputs and result stay in step, whatever the number of prompts. */
void CheckPrompts(const AcceleratorFunction& function) {
  const OutputLayout& output = function.output;
  if (function.inputs.empty()) throw ProgramImageError("nothing says how many prompts a program is for");
  for (const InputLayout& input : function.inputs) {
    const uint64_t left = uint64_t{input.total} * output.batch * output.rows;  // below 2^40: see CheckRuns
    if (left != uint64_t{output.total} * input.batch * input.rows) {
      throw ProgramImageError("inputs and result of a program do not grow together with the number of prompts");
    }
  }
}

}  // namespace

std::vector<uint8_t> InputLayout::Pack(const uint8_t* codes, size_t run, size_t all) const {
  std::vector<uint8_t> packed(DeviceBytes());
  uint8_t* to = packed.data();
  uint8_t seen = 0;
  for (uint32_t b = 0; b < batch; ++b) {
    for (uint32_t block = 0; block < blocks; ++block) {
      const std::array<uint8_t, 256>& codes_of = code_of[block / (blocks / code_of.size())];
      const int32_t* channel = channel_at.data() + size_t{block} * dim;
      for (int32_t row : row_at) {
        const size_t at = (run * batch + b) * rows + static_cast<uint32_t>(row);
        const uint8_t* from = row < 0 || at >= all ? nullptr : codes + at * channels;
        for (uint32_t i = 0; i < dim; i += 2, ++to) {
          const uint8_t low = CodeAt(codes_of, from, channel[i]), high = CodeAt(codes_of, from, channel[i + 1]);
          seen |= low | high;
          *to = static_cast<uint8_t>(low | high << 4);
        }
      }
    }
  }
  if (seen > 15) throw ProgramImageError("a value is no code of its quantizer");
  return packed;
}

void OutputLayout::Unpack(const int32_t* sums, size_t run, size_t all, float* values) const {
  for (uint32_t b = 0; b < batch; ++b) {
    for (size_t place = 0; place < row_at.size(); ++place) {
      const size_t row = (run * batch + b) * rows + static_cast<uint32_t>(row_at[place]);
      if (row_at[place] >= 0 && row < all) UnpackRow(sums, b, place, values + row * channels);
    }
  }
}

void OutputLayout::UnpackRow(const int32_t* sums, size_t batch_index, size_t place, float* to) const {
  std::vector<uint32_t> carries(words);  // makes all fields of a word positive: none borrows from the next
  for (const SumField& field : fields) carries[field.word] += UINT32_C(1) << (field.offset + field.bits - 1);
  std::memcpy(to, bias.data(), size_t{channels} * sizeof(float));
  std::vector<float> quotients;
  const float* scale = multiplier.data();
  if (divisor != 0) {
    const size_t at = (batch_index * blocks + channels / dim) * row_at.size() + place;
    const float sum = static_cast<float>(divisor * sums[at * dim + channels % dim]);
    for (float each : multiplier) quotients.push_back(each / sum);
    scale = quotients.data();
  }
  const int32_t* left = correction.data();
  for (const SumField& field : fields) {
    for (uint32_t block = 0; block * dim < channels; ++block) {
      const size_t at = ((size_t{field.word} * batch + batch_index) * blocks + block) * row_at.size() + place;
      const uint32_t first = block * dim, count = std::min(dim, channels - first);
      MultiplyAdd(sums + at * dim, carries[field.word], field, left + first, scale + first, to + first, count);
    }
    scale += channels;
    left += channels;
  }
}

size_t AcceleratorFunction::Runs(size_t repeats) const {
  const size_t one = size_t{output.batch} * output.rows;
  return (repeats * output.total + one - 1) / one;
}

AcceleratorPrograms AcceleratorPrograms::Parse(const char* data, size_t size) {
  Reader reader(data, size);
  if (size < sizeof kMagic || std::memcmp(reader.Take(sizeof kMagic), kMagic, sizeof kMagic) != 0) {
    throw ProgramImageError("they do not begin as programs for the accelerator do");
  }
  const uint32_t version = reader.Next<uint32_t>();
  if (version != kVersion) {
    throw ProgramImageError("they have format " + std::to_string(version) + "; this library reads format " +
                            std::to_string(kVersion));
  }
  const uint32_t checksum = reader.Next<uint32_t>();
  if (Checksum(data + (size - reader.Left()), reader.Left()) != checksum) throw ProgramImageError("they are damaged");
  AcceleratorPrograms programs;
  programs.config_hash = reader.Next<uint32_t>();
  programs.config = reader.Text();
  programs.scratch_bytes = reader.Next<uint64_t>();
  const uint32_t count = reader.Next<uint32_t>();
  for (uint32_t i = 0; i < count; ++i) {
    AcceleratorFunction function;
    function.name = reader.Text();
    function.program = reader.Next<uint64_t>();
    function.length = reader.Size();
    function.runs = reader.Size();
    const uint32_t batched = reader.Next<uint32_t>();
    const uint32_t inputs = reader.Next<uint32_t>();
    if (batched > 1) throw ProgramImageError("it is not clear whether a program is for each prompt");
    function.batched = batched == 1;
    for (uint32_t input = 0; input < inputs; ++input) {
      function.inputs.push_back(ReadInput(&reader, programs.scratch_bytes));
      const InputLayout& given = function.inputs.back();
      CheckRuns(function.runs, given.total, given.batch, given.rows);
    }
    function.output = ReadOutput(&reader, programs.scratch_bytes);
    CheckRuns(function.runs, function.output.total, function.output.batch, function.output.rows);
    if (function.batched) CheckPrompts(function);
    programs.functions.push_back(std::move(function));
  }
  const size_t left = reader.Left();
  programs.constants.assign(reader.Take(left), left);
  for (const AcceleratorFunction& function : programs.functions) {
    const uint64_t bytes = uint64_t{function.length} * kInstructionBytes;
    if (bytes > left || function.program > left - bytes || function.program % kInstructionBytes) {
      throw ProgramImageError("the program of " + function.name + " lies outside of them");
    }
  }
  return programs;
}

}  // namespace ahcq
