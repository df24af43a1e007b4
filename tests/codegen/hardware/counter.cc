// Counts toggles of as many cycles as the second argument says; the first is the file that gets them.
#include <cstdlib>

#include "Vcounter.h"
#include "verilated_saif_c.h"

int main(int, char** arguments) {
  VerilatedContext context;
  context.traceEverOn(true);
  Vcounter counter(&context);
  VerilatedSaifC toggles;
  counter.trace(&toggles, 99);
  counter.clk_i = 0;
  counter.eval();
  toggles.open(arguments[1]);
  toggles.dump(0);
  for (int cycle = 1; cycle <= std::atoi(arguments[2]); ++cycle) {
    for (int level = 1; level >= 0; --level) {
      counter.clk_i = level;
      counter.eval();
    }
    toggles.dump(cycle);
  }
  toggles.close();
  return 0;
}
