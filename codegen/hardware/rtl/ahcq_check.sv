// Checks each instruction and puts it into the queue of its unit; ends the program at FINISH or at the first fault.
module ahcq_check
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned ActDepth = 16,
  parameter int unsigned WgtDepth = 16,
  parameter int unsigned AccDepth = 16,
  parameter int unsigned VecDepth = 16,
  parameter int unsigned OutDepth = 16,
  parameter int unsigned LgtDepth = 16,
  parameter int unsigned StatDepth = 16
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         run_i,
  input  logic [31:0]  length_i,
  input  logic [31:0]  base_i,
  input  logic [31:0]  limit_i,
  input  logic         valid_i,
  input  logic [255:0] instr_i,
  input  logic         error_i,
  output logic         ready_o,
  output logic [3:0]   queue_valid_o,
  input  logic [3:0]   queue_ready_i,
  output logic [255:0] queue_instr_o,
  input  logic         drained_i,      // all queues empty, all units idle
  output logic         done_o,
  output error_e       error_o,
  output logic [31:0]  index_o
);
  typedef enum logic [2:0] {Wait, Fields, Range, Multiply, Sum, Compare, Dispatch, Drain} state_e;

  state_e state_d, state_q;
  error_e error_d, error_q;
  logic [2:0] range_d, range_q;
  logic [31:0] index_d, index_q;
  range_t r, r_q;
  logic [31:0] product0_q, product1_q;
  logic [35:0] tail_q, end_q;
  logic [35:0] depth;
  logic whole, whole_q, fits, opcode_ok_q, fields_ok_q;
  logic [3:0] unit, unit_q;

  // the range of the next cycle, one bit each
  logic [Ranges-1:0] select_q;
  always_ff @(posedge clk_i) select_q <= range_select(instr_i[3:0], range_d);
  assign r = range_of(instr_i, select_q, 12'(Dim));

  // chunks of a DMA row to words of its scratchpad
  localparam int unsigned CodeWidth = 4 * Dim;
  localparam int unsigned VecChunks = Dim / 2;
  logic [35:0] words;
  always_comb begin
    words = 36'(r_q.tail);
    whole = 1'b1;
    if (r_q.tail_chunks) begin
      if (r_q.memory == MemDram) begin
        words = 36'(r_q.tail) << 3;
      end else if (r_q.memory == MemVec) begin
        words = 36'(r_q.tail) >> $clog2(VecChunks);
        whole = (r_q.tail & 12'(VecChunks - 1)) == '0;
      end else if (r_q.memory inside {MemAct, MemWgt, MemOut}) begin
        if (CodeWidth <= 64) begin
          words = 36'(r_q.tail) << $clog2(64 / CodeWidth);
        end else begin
          words = 36'(r_q.tail) >> $clog2(CodeWidth / 64);
          whole = (r_q.tail & 12'(CodeWidth / 64 - 1)) == '0;
        end
      end
    end
  end

  always_comb begin
    unique case (r_q.memory)
      MemAct: depth = 36'(ActDepth);
      MemWgt: depth = 36'(WgtDepth);
      MemAcc: depth = 36'(AccDepth);
      MemVec: depth = 36'(VecDepth);
      MemOut: depth = 36'(OutDepth);
      MemLgt: depth = 36'(LgtDepth);
      MemStat: depth = 36'(StatDepth);
      default: depth = 36'd32;
    endcase
    if (r_q.memory == MemDram) begin
      fits = end_q <= 36'(limit_i) && r_q.base >= base_i && r_q.base[1:0] == '0 && r_q.stride0[1:0] == '0 &&
          (instr_i[3:0] == OpLoad || (!r_q.base[2] && !r_q.stride0[2]));
    end else begin
      fits = end_q <= depth && whole_q;
    end
  end

  always_comb begin
    unique case (instr_i[3:0])
      OpLoad: unit = 4'b0001;
      OpGemm: unit = 4'b0010;
      OpStore: unit = 4'b1000;
      default: unit = 4'b0100;
    endcase
  end

  always_comb begin
    state_d = state_q;
    error_d = error_q;
    range_d = range_q;
    index_d = index_q;
    ready_o = 1'b0;
    queue_valid_o = '0;
    done_o = 1'b0;
    unique case (state_q)
      Wait: begin
        range_d = '0;
        if (run_i && index_q == length_i) begin
          error_d = ErrProgramEnd;
          state_d = Drain;
        end else if (run_i && valid_i) begin
          state_d = Fields;
        end
      end
      Fields: begin
        state_d = Range;
        if (error_i) error_d = ErrBusFetch;
        else if (!opcode_ok_q) error_d = ErrIllegalOpcode;
        else if (!fields_ok_q) error_d = ErrIllegalField;
        if (error_d != ErrNone || instr_i[3:0] == OpFinish) state_d = Drain;
      end
      Range: state_d = Multiply;
      Multiply: state_d = Sum;
      Sum: state_d = Compare;
      Compare: begin
        if (r_q.enable && !fits) begin
          error_d = r_q.memory == MemDram ? ErrAddressRange : ErrScratchpadRange;
          state_d = Drain;
        end else if (r_q.last) begin
          state_d = Dispatch;
        end else begin
          range_d = range_q + 1'b1;
          state_d = Range;
        end
      end
      Dispatch: begin
        queue_valid_o = unit_q;
        if ((unit_q & queue_ready_i) != '0) begin
          ready_o = 1'b1;
          index_d = index_q + 1'b1;
          state_d = Wait;
        end
      end
      Drain: done_o = drained_i;
      default: state_d = Wait;
    endcase
    if (!run_i) begin
      state_d = Wait;
      index_d = '0;
      error_d = ErrNone;
    end
  end

  assign queue_instr_o = instr_i;
  assign error_o = error_q;
  assign index_o = index_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= Wait;
      error_q <= ErrNone;
      range_q <= '0;
      index_q <= '0;
    end else begin
      state_q <= state_d;
      error_q <= error_d;
      range_q <= range_d;
      index_q <= index_d;
    end
  end

  always_ff @(posedge clk_i) begin
    unit_q <= unit;
    opcode_ok_q <= opcode_ok(instr_i[3:0]);
    fields_ok_q <= fields_ok(instr_i);
    if (state_q == Range) r_q <= r;
    if (state_q == Multiply) begin
      product0_q <= 32'(r_q.count0 - 12'd1) * 32'(r_q.stride0);
      product1_q <= 32'(r_q.count1 - 12'd1) * 32'(r_q.stride1);
      tail_q <= words;
      whole_q <= whole;
    end
    if (state_q == Sum) end_q <= 36'(r_q.base) + 36'(product0_q) + 36'(product1_q) + tail_q;
  end
endmodule
