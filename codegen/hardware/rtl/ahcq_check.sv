// Checks each instruction and puts it into the queue of its unit; ends the program at FINISH or at the first fault.
module ahcq_check
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned BusChunks = 1,
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
  typedef enum logic [2:0] {Wait, Fields, Check, Dispatch, Drain} state_e;

  state_e state_d, state_q;
  error_e error_d, error_q;
  logic [2:0] range_d, range_q;
  logic [31:0] index_d, index_q;
  logic opcode_ok_q, fields_ok_q;
  logic [3:0] unit, unit_q;
  logic room_q;  // in the queue; only this module takes it

  // The ranges of an instruction go through six stages, one after the other: fields (in slices of the list of ranges, then
  // the slice that has one), counts, products, end, verdict.
  localparam int unsigned Stages = 6;
  localparam int unsigned Slices = 6;
  localparam int unsigned SliceRanges = (Ranges + Slices - 1) / Slices;
  range_t slice_q[Slices], slice, r_q[2:Stages];
  logic [Slices-1:0] in_slice_q;
  logic last;
  logic [Stages:1] valid_q;
  logic feed_d, feed_q, fits, fits_q;
  logic [11:0] steps0_q, steps1_q;
  logic [31:0] product0_q, product1_q;
  logic [35:0] words_q, tail_q, end_q, depth, depth_q;
  logic whole, whole_q[3:Stages-1];

  // the range of the next cycle, one bit each
  logic [Ranges-1:0] select_q;
  always_ff @(posedge clk_i) select_q <= range_select(instr_i[3:0], range_d);
  for (genvar s = 0; s < Slices; s++) begin : gen_slice
    logic [Ranges-1:0] select;
    assign select = select_q & (Ranges'((1 << SliceRanges) - 1) << (s * SliceRanges));
    always_ff @(posedge clk_i) begin
      slice_q[s] <= range_of(instr_i, select, 12'(Dim));
      in_slice_q[s] <= select != '0;
    end
  end
  always_comb begin
    slice = '0;
    for (int unsigned s = 0; s < Slices; s++) slice |= in_slice_q[s] ? slice_q[s] : '0;
  end
  range_t selected;
  assign selected = range_of(instr_i, select_q, 12'(Dim));
  assign last = selected.last;

  // chunks of a DMA row to words of its scratchpad
  localparam int unsigned CodeWidth = 4 * Dim;
  localparam int unsigned VecChunks = Dim / 2;
  localparam int unsigned StoreBits = 1 + $clog2(BusChunks);  // addresses of STORE are whole beats
  logic [35:0] words;
  always_comb begin
    words = 36'(r_q[2].tail);
    whole = 1'b1;
    if (r_q[2].tail_chunks) begin
      if (r_q[2].memory == MemDram) begin
        words = 36'(r_q[2].tail) << 3;
      end else if (r_q[2].memory == MemVec) begin
        words = 36'(r_q[2].tail) >> $clog2(VecChunks);
        whole = (r_q[2].tail & 12'(VecChunks - 1)) == '0;
      end else if (r_q[2].memory inside {MemAct, MemWgt, MemOut}) begin
        if (CodeWidth <= 64) begin
          words = 36'(r_q[2].tail) << $clog2(64 / CodeWidth);
        end else begin
          words = 36'(r_q[2].tail) >> $clog2(CodeWidth / 64);
          whole = (r_q[2].tail & 12'(CodeWidth / 64 - 1)) == '0;
        end
      end
    end
  end

  always_comb begin
    unique case (r_q[4].memory)
      MemAct: depth = 36'(ActDepth);
      MemWgt: depth = 36'(WgtDepth);
      MemAcc: depth = 36'(AccDepth);
      MemVec: depth = 36'(VecDepth);
      MemOut: depth = 36'(OutDepth);
      MemLgt: depth = 36'(LgtDepth);
      MemStat: depth = 36'(StatDepth);
      default: depth = 36'd32;
    endcase
  end
  always_comb begin
    if (r_q[5].memory == MemDram) begin
      fits = end_q <= 36'(limit_i) && r_q[5].base >= base_i && r_q[5].base[1:0] == '0 && r_q[5].stride0[1:0] == '0 &&
          (instr_i[3:0] == OpLoad || (r_q[5].base[2+:StoreBits] == '0 && r_q[5].stride0[2+:StoreBits] == '0));
    end else begin
      fits = end_q <= depth_q && whole_q[5];
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
    range_d = '0;
    feed_d = 1'b0;
    index_d = index_q;
    ready_o = 1'b0;
    queue_valid_o = '0;
    done_o = 1'b0;
    unique case (state_q)
      Wait: begin
        if (run_i && index_q == length_i) begin
          error_d = ErrProgramEnd;
          state_d = Drain;
        end else if (run_i && valid_i) begin
          state_d = Fields;
        end
      end
      Fields: begin
        state_d = Check;
        feed_d = 1'b1;
        if (error_i) error_d = ErrBusFetch;
        else if (!opcode_ok_q) error_d = ErrIllegalOpcode;
        else if (!fields_ok_q) error_d = ErrIllegalField;
        if (error_d != ErrNone || instr_i[3:0] == OpFinish) state_d = Drain;
      end
      Check: begin
        feed_d = feed_q && !last;
        range_d = range_q + 1'b1;
        if (valid_q[Stages] && !fits_q) begin
          error_d = r_q[Stages].memory == MemDram ? ErrAddressRange : ErrScratchpadRange;
          state_d = Drain;
        end else if (valid_q[Stages] && r_q[Stages].last) begin
          state_d = Dispatch;
        end
      end
      Dispatch: begin
        if (room_q) begin
          queue_valid_o = unit_q;
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
      feed_q <= 1'b0;
      valid_q <= '0;
    end else begin
      state_q <= state_d;
      error_q <= error_d;
      range_q <= range_d;
      feed_q <= feed_d;
      valid_q <= state_d == Check ? {valid_q[Stages-1:1], feed_q} : '0;
      index_q <= index_d;
    end
  end

  always_ff @(posedge clk_i) begin
    unit_q <= unit;
    room_q <= (unit_q & queue_ready_i) != '0;
    opcode_ok_q <= opcode_ok(instr_i[3:0]);
    fields_ok_q <= fields_ok(instr_i);
    r_q[2] <= slice;
    for (int unsigned i = 3; i <= Stages; i++) r_q[i] <= r_q[i-1];
    steps0_q <= r_q[2].count0 - 1'b1;
    steps1_q <= r_q[2].count1 - 1'b1;
    words_q <= words;
    product0_q <= 32'(steps0_q) * 32'(r_q[3].stride0);
    product1_q <= 32'(steps1_q) * 32'(r_q[3].stride1);
    tail_q <= 36'(r_q[3].base) + words_q;
    end_q <= 36'(product0_q) + 36'(product1_q) + tail_q;
    whole_q[3] <= whole;
    for (int unsigned i = 4; i < Stages; i++) whole_q[i] <= whole_q[i-1];
    depth_q <= depth;
    fits_q <= fits || !r_q[5].enable;
  end
endmodule
