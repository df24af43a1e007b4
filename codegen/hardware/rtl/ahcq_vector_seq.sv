// Sequencer of the vector unit: turns an instruction into slots, one a cycle. A slot reads the memories and goes down
// the lanes; slots that only carry a parameter come before those that use it.
module ahcq_vector_seq
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned Lanes = 2
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         start_valid_i,
  input  logic [255:0] start_instr_i,
  output logic         start_ready_o,
  output logic         give_valid_o,
  output logic [3:0]   give_mask_o,
  input  logic         give_ready_i,
  output logic         busy_o,
  input  logic         lanes_busy_i,
  input  logic         rows_ready_i,  // room for one more row sum
  input  logic         acc_ready_i,
  output logic         acc_read_o,
  output logic         valid_o,
  output slot_t        slot_o,
  output logic [15:0]  acc_addr_o,
  output logic [19:0]  vec_addr_o,    // in groups of Lanes
  output logic [19:0]  lgt_addr_o     // in groups of Lanes
);
  localparam int unsigned Subs = Dim / Lanes;
  localparam int unsigned SubBits = $clog2(Subs);

  typedef enum logic [2:0] {Idle, Mult, Bias, RelH, Data, Drain, Give} state_e;
  state_e state_d, state_q;
  scale_t scale;
  logit_t logit;
  prob_t prob;
  logic [255:0] instr_q;
  logic [3:0] op;
  logic [11:0] row_q, block_q;
  logic [3:0] sub_q;
  logic [15:0] acc_q, add_q, dst_q, lgt_q, rel_w_q, rel_h_q;  // of the block (acc, add, dst) or row (the others)
  logic row_inner, issue, last_row, last_block, last_sub, blocked, start;
  logic [19:0] vec_word;

  assign scale = instr_q;
  assign logit = instr_q;
  assign prob = instr_q;
  assign op = instr_q[3:0];
  assign row_inner = op == OpScale;
  assign start_ready_o = state_q == Idle;
  assign start = start_valid_i && start_ready_o;
  // every vector instruction has its rows and blocks first, SCALE behind the memory; less one, to be compared with
  logic [11:0] last_row_q, last_block_q;
  scale_t start_scale;
  prob_t start_prob;
  logit_t start_logit;
  assign start_scale = start_instr_i;
  assign start_prob = start_instr_i;
  assign start_logit = start_instr_i;
  always_ff @(posedge clk_i) begin
    if (start) begin
      last_row_q <= (start_scale.opcode == OpScale ? start_scale.rows : start_logit.rows) - 1'b1;
      last_block_q <= (start_scale.opcode == OpScale ? start_scale.blocks : start_logit.blocks) - 1'b1;
    end
  end
  assign last_row = row_q == last_row_q;
  assign last_block = block_q == last_block_q;
  assign last_sub = sub_q == 4'(Subs - 1);

  logic start_rel;
  assign start_rel = start_logit.rel;
  logic uses_acc;
  assign uses_acc = op == OpScale || op == OpLogit;
  assign acc_read_o = state_q == Data && uses_acc;
  assign blocked = (uses_acc && !acc_ready_i) ||
      (op == OpExpsum && block_q == '0 && sub_q == '0 && !rows_ready_i);
  assign issue = state_q == Data && !blocked;

  always_comb begin
    state_d = state_q;
    unique case (state_q)
      Idle: begin
        if (start) begin
          state_d = Data;
          if (start_instr_i[3:0] == OpScale) state_d = Mult;
          else if (start_instr_i[3:0] == OpLogit && start_rel) state_d = RelH;
        end
      end
      Mult: state_d = scale.add_mode == 2'd1 ? Bias : Data;
      Bias, RelH: state_d = Data;
      Data: begin
        if (issue) begin
          if (row_inner && last_row) state_d = last_sub && last_block ? Drain : Mult;
          if (!row_inner && last_sub && last_block) begin
            if (last_row) state_d = Drain;
            else if (op == OpLogit && logit.rel) state_d = RelH;
          end
        end
      end
      Drain: if (!lanes_busy_i) state_d = Give;
      Give: if (give_ready_i) state_d = Idle;
      default: state_d = Idle;
    endcase
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) state_q <= Idle;
    else state_q <= state_d;
  end

  logic next_block, next_row;
  assign next_block = row_inner ? last_row && last_sub : last_sub;
  assign next_row = row_inner || (last_sub && last_block);

  always_ff @(posedge clk_i) begin
    if (start) begin
      instr_q <= start_instr_i;
      row_q <= '0;
      block_q <= '0;
      sub_q <= '0;
      acc_q <= start_instr_i[3:0] == OpScale ? start_scale.acc : start_logit.acc;
      add_q <= start_scale.add;
      dst_q <= start_instr_i[3:0] == OpScale ? start_scale.dst : start_prob.dst;
      lgt_q <= start_instr_i[3:0] == OpLogit ? start_logit.lgt : start_prob.lgt;
      rel_w_q <= start_logit.rel_w;
      rel_h_q <= start_logit.rel_h;
    end else if (issue) begin
      if (row_inner) begin
        row_q <= last_row ? '0 : row_q + 1'b1;
        if (last_row) sub_q <= last_sub ? '0 : sub_q + 1'b1;
      end else begin
        sub_q <= last_sub ? '0 : sub_q + 1'b1;
        if (next_row) row_q <= row_q + 1'b1;
      end
      if (next_block) begin
        block_q <= last_block ? '0 : block_q + 1'b1;
        add_q <= add_q + scale.add_block;
        if (row_inner) begin
          acc_q <= acc_q + scale.acc_block;
          dst_q <= dst_q + scale.dst_block;
        end else begin
          acc_q <= last_block ? logit.acc : acc_q + logit.acc_block;
          dst_q <= last_block ? prob.dst : dst_q + prob.dst_block;
        end
      end
      if (!row_inner && next_row) begin
        lgt_q <= lgt_q + (op == OpLogit ? logit.lgt_row : prob.lgt_row);
        rel_w_q <= rel_w_q + 16'(logit.rel_w_row);
        rel_h_q <= rel_h_q + 16'(logit.rel_h_row);
      end
    end
  end

  // Addresses. `vec` gives a parameter, the addend of a row, or the width terms of a block.
  always_comb begin
    unique case (state_q)
      Mult: vec_word = 20'(scale.mult) + 20'(block_q);
      Bias: vec_word = 20'(scale.add) + 20'(block_q);
      RelH: vec_word = 20'(rel_h_q);
      default: vec_word = op == OpLogit ? 20'(rel_w_q) + 20'(block_q) : 20'(add_q) + 20'(row_q);
    endcase
  end
  logic [5:0] rel_h_lane;
  assign rel_h_lane = logit.rel_h_lane & 6'(Dim - 1);
  logic [19:0] vec_sub;
  assign vec_sub = state_q == RelH ? 20'(rel_h_lane) >> $clog2(Lanes) : 20'(sub_q);
  assign vec_addr_o = (vec_word << SubBits) + vec_sub;
  assign acc_addr_o = acc_q + 16'(row_q);
  assign lgt_addr_o = ((20'(lgt_q) + 20'(block_q)) << SubBits) + 20'(sub_q);

  assign valid_o = issue || state_q inside {Mult, Bias, RelH};
  always_comb begin
    slot_o = '0;
    slot_o.op = opcode_e'(op);
    unique case (state_q)
      Mult: slot_o.kind = SetMult;
      Bias: slot_o.kind = SetBias;
      RelH: slot_o.kind = SetRelH;
      default: slot_o.kind = Compute;
    endcase
    slot_o.sub = sub_q;
    slot_o.first = row_inner || (block_q == '0 && sub_q == '0);
    slot_o.last = row_inner || (last_block && last_sub);
    slot_o.fresh = logit.first;
    slot_o.stat = (op == OpLogit ? logit.stat : prob.stat) + row_q[7:0];
    slot_o.pre = op == OpScale ? scale.pre : op == OpLogit ? logit.pre : '0;
    slot_o.shift = op == OpLogit ? 6'(logit.shift) : '0;
    slot_o.mult = op == OpLogit ? logit.mult : MantissaBits'(1);
    slot_o.row_addend = op == OpScale ? scale.add_mode == 2'd2 : op == OpLogit && logit.rel;
    slot_o.bias = op == OpScale && scale.add_mode == 2'd1;
    slot_o.lane = rel_h_lane & 6'(Lanes - 1);
    // lanes of this group that hold real keys
    slot_o.real_lanes = last_block && op == OpLogit ? logit.valid : 7'd127;
    slot_o.memory = op == OpScale ? memory_e'({1'b0, scale.memory}) : op == OpProb ? MemAct : MemLgt;
    slot_o.dst = op == OpLogit ? lgt_q + 16'(block_q) : dst_q + 16'(row_q);
  end

  assign give_valid_o = state_q == Give;
  assign give_mask_o = instr_q[11:8];
  assign busy_o = state_q != Idle;
endmodule
