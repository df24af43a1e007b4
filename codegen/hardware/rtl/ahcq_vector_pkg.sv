// What travels down the lanes of the vector unit, and from LOAD to the memories.
package ahcq_vector_pkg;
  import ahcq_isa_pkg::*;

  localparam logic signed [LogitBits-1:0] Masked = {1'b1, {(LogitBits - 1) {1'b0}}};
  localparam logic signed [LogitBits-1:0] LogitMax = {1'b0, {(LogitBits - 1) {1'b1}}};

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

  // What LOAD writes beside the data: a bit for each memory it could be for, and the place.
  typedef struct packed {
    logic        act;
    logic        wgt;
    logic        vec;
    logic        decode;
    logic        encode;
    logic [15:0] word;  // of Dim elements; chunk of a table
    logic [4:0]  part;  // beat within the word
  } write_t;

  typedef enum logic [1:0] {AddNothing, AddBias, AddVec, SubMax} addend_e;

  // What a scaler must know, each at the stage in its name, decoded one stage before.
  typedef struct packed {
    logic                    from_acc_1;
    logic [4:0]              pre_2;
    logic                    set_mult_3;
    logic                    scale_3;
    logic [MantissaBits-1:0] mult_3;
    logic [5:0]              shift_3;
    logic                    rel_6;
    logic                    set_bias_9;
    addend_e                 addend_9;
    logic                    carry_10;
    logic                    logit_12;
  } scaler_control_t;

  // The control of one stage from the slots of the stage before.
  function automatic addend_e addend_of(slot_t slot);
    unique case (slot.op)
      OpScale: return slot.row_addend ? AddVec : slot.bias ? AddBias : AddNothing;
      OpProb: return SubMax;
      default: return AddNothing;
    endcase
  endfunction
endpackage
