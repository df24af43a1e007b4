// Reads pairs of words, one for each cycle; writes the five results of each cycle.
#include <cstdint>
#include <cstdio>
#include <memory>

#include "Vfp_units.h"

int main() {
  auto units = std::make_unique<Vfp_units>();
  uint32_t pair[2];
  while (std::fread(pair, sizeof(pair), 1, stdin) == 1) {
    units->a_i = pair[0];
    units->b_i = pair[1];
    units->clk_i = 0;
    units->eval();
    units->clk_i = 1;
    units->eval();
    for (int i = 0; i < 5; ++i) {
      const uint32_t word = units->result_o[i];
      std::fwrite(&word, sizeof(word), 1, stdout);
    }
  }
  return 0;
}
