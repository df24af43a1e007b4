// Runs tiles on the core. In: number of tiles, of chunks, of results, percent of cycles without a chunk (uint32 each);
// rows and steps of each tile (uint32); whether a chunk is of weights (uint32), then its 8 bytes. Out: cycles (uint32)
// from the first cycle in which something is offered to the one with the last result; results. Where toggles are
// counted, they are those of these cycles, and go to the file of the first argument.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "Vfp_gemm.h"
#if VM_TRACE
#include "verilated_saif_c.h"
#endif

static std::vector<uint32_t> read_words(size_t count) {
  std::vector<uint32_t> words(count);
  if (std::fread(words.data(), 4, count, stdin) != count) std::exit(2);
  return words;
}

int main([[maybe_unused]] int count, [[maybe_unused]] char** arguments) {
  const auto head = read_words(4);
  const uint32_t tiles = head[0], chunks = head[1], wanted = head[2], idle = head[3];
  const auto sizes = read_words(2 * tiles);
  const auto data = read_words(3 * chunks);
#if VM_TRACE
  if (count != 2) return 2;
  Verilated::traceEverOn(true);
  VerilatedSaifC toggles;
#endif
  auto core = std::make_unique<Vfp_gemm>();
  std::mt19937 random(1);
  std::vector<uint32_t> results;
  const auto edge = [&] {
    core->clk_i = 1;
    core->eval();
    core->clk_i = 0;
    core->eval();
  };
  core->clk_i = 0;
  core->rst_ni = 0;
  core->eval();
  for (int i = 0; i < 4; ++i) edge();
  core->rst_ni = 1;
  core->eval();
  for (int i = 0; i < 4; ++i) edge();
  uint32_t tile = 0, chunk = 0, cycles = 0;
#if VM_TRACE
  core->trace(&toggles, 99);
  toggles.open(arguments[1]);
  toggles.dump(0);
#endif
  while (results.size() < wanted && cycles < 10000000) {
    core->command_valid_i = tile < tiles;
    if (tile < tiles) {
      core->rows_i = sizes[2 * tile];
      core->steps_i = sizes[2 * tile + 1];
    }
    const bool offered = chunk < chunks && random() % 100 >= idle;
    const bool weights = offered && data[3 * chunk];
    core->weight_valid_i = offered && weights;
    core->operand_valid_i = offered && !weights;
    if (offered) std::memcpy(&core->chunk_i, &data[3 * chunk + 1], 8);
    core->eval();
    if (core->command_valid_i && core->command_ready_o) ++tile;
    if (offered && (weights ? core->weight_ready_o : core->operand_ready_o)) ++chunk;
    if (core->result_valid_o) results.push_back(core->result_o);
    ++cycles;
    edge();
#if VM_TRACE
    toggles.dump(cycles);
#endif
  }
#if VM_TRACE
  toggles.close();
#endif
  std::fwrite(&cycles, 4, 1, stdout);
  std::fwrite(results.data(), 4, results.size(), stdout);
  return results.size() == wanted ? 0 : 1;
}
