// What travels down the lanes of the vector unit.
package ahcq_vector_pkg;
  import ahcq_isa_pkg::*;

  typedef enum logic [1:0] {Compute, SetMult, SetBias, SetRelH} kind_e;

  typedef struct packed {
    opcode_e                 op;
    kind_e                   kind;
    logic [3:0]              sub;         // which group of lanes of the word
    logic                    first;       // of the row
    logic                    last;
    logic                    fresh;       // the row maximum starts anew
    logic [7:0]              stat;
    logic [4:0]              pre;
    logic [5:0]              shift;       // LOGIT; SCALE takes its own from the scale word
    logic [MantissaBits-1:0] mult;
    logic                    row_addend;
    logic                    bias;
    logic [5:0]              lane;        // of the height term
    logic [6:0]              real_lanes;  // of the word
    memory_e                 memory;
    logic [15:0]             dst;
  } slot_t;
endpackage
