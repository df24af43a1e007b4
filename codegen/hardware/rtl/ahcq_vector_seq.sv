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
  input  logic         start_i,
  input  logic [255:0] start_instr_i,
  output logic         ready_o,
  output logic         give_valid_o,
  output logic [3:0]   give_mask_o,
  input  logic         give_ready_i,
  output logic         busy_o,
  input  logic         lanes_busy_i,
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
  localparam int unsigned SubWidth = SubBits == 0 ? 1 : SubBits;

  typedef enum logic [2:0] {Idle, Mult, Bias, RelH, Data, Drain, Give} state_e;
  state_e state_d, state_q;
  scale_t scale;
  logit_t logit;
  prob_t prob;
  logic [255:0] instr_q;
  logic [3:0] op;
  logic [11:0] row, block;
  logic first_block, next_row, next_block;
  logic [SubWidth-1:0] sub_q;
  logic [15:0] acc_at_q;
  logic [15:0] acc_q, add_q, dst_q, lgt_q, rel_w_q, rel_h_q;  // of the block (add, dst; acc of SCALE) or row
  logic issue, last_row, last_block, last_sub, data_q;
  logic [19:0] vec_word;

  assign scale = instr_q;
  assign logit = instr_q;
  assign prob = instr_q;
  assign op = instr_q[3:0];
  assign ready_o = state_q == Idle;
  scale_t start_scale;
  prob_t start_prob;
  logit_t start_logit;
  assign start_scale = start_instr_i;
  assign start_prob = start_instr_i;
  assign start_logit = start_instr_i;
  // what the opcode says, held from the start on
  logic is_scale_q, is_logit_q, uses_acc_q, row_addend_q;
  always_ff @(posedge clk_i) begin
    if (start_i) begin
      is_scale_q <= start_scale.opcode == OpScale;
      is_logit_q <= start_scale.opcode == OpLogit;
      uses_acc_q <= start_scale.opcode == OpScale || start_scale.opcode == OpLogit;
      row_addend_q <= start_scale.opcode == OpScale ? start_scale.add_mode == 2'd2 :
          start_scale.opcode == OpLogit && start_logit.rel;
    end
  end
  assign next_block = is_scale_q ? last_row && last_sub : last_sub;
  assign next_row = is_scale_q || (last_sub && last_block);

  // every vector instruction has its rows and blocks first, SCALE behind the memory
  ahcq_count u_row (
    .clk_i,
    .load_i (start_i),
    .count_i(start_scale.opcode == OpScale ? start_scale.rows : start_logit.rows),
    .step_i (issue && next_row),
    .value_o(row),
    .first_o(),
    .last_o (last_row)
  );
  ahcq_count u_block (
    .clk_i,
    .load_i (start_i),
    .count_i(start_scale.opcode == OpScale ? start_scale.blocks : start_logit.blocks),
    .step_i (issue && next_block),
    .value_o(block),
    .first_o(first_block),
    .last_o (last_block)
  );
  assign last_sub = sub_q == SubWidth'(Subs - 1);

  logic start_rel;
  assign start_rel = start_logit.rel;
  assign acc_read_o = data_q && uses_acc_q;
  assign issue = data_q && (!uses_acc_q || acc_ready_i);

  always_comb begin
    state_d = state_q;
    unique case (state_q)
      Idle: begin
        if (start_i) begin
          state_d = Data;
          if (start_instr_i[3:0] == OpScale) state_d = Mult;
          else if (start_instr_i[3:0] == OpLogit && start_rel) state_d = RelH;
        end
      end
      Mult: state_d = scale.add_mode == 2'd1 ? Bias : Data;
      Bias, RelH: state_d = Data;
      Data: begin
        if (issue) begin
          if (is_scale_q && last_row) state_d = last_sub && last_block ? Drain : Mult;
          if (!is_scale_q && last_sub && last_block) begin
            if (last_row) state_d = Drain;
            else if (is_logit_q && logit.rel) state_d = RelH;
          end
        end
      end
      Drain: if (!lanes_busy_i) state_d = Give;
      Give: if (give_ready_i) state_d = Idle;
      default: state_d = Idle;
    endcase
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= Idle;
      data_q <= 1'b0;
    end else begin
      state_q <= state_d;
      data_q <= state_d == Data;
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      instr_q <= start_instr_i;
      sub_q <= '0;
      acc_q <= start_instr_i[3:0] == OpScale ? start_scale.acc : start_logit.acc;
      acc_at_q <= start_instr_i[3:0] == OpScale ? start_scale.acc : start_logit.acc;
      add_q <= start_scale.add;
      dst_q <= start_instr_i[3:0] == OpScale ? start_scale.dst : start_prob.dst;
      lgt_q <= start_instr_i[3:0] == OpLogit ? start_logit.lgt : start_prob.lgt;
      rel_w_q <= start_logit.rel_w;
      rel_h_q <= start_logit.rel_h;
    end else if (issue) begin
      // SCALE: every row of a block, once for each group of lanes.  LOGIT: every block of a row
      if (is_scale_q) acc_at_q <= !last_row ? acc_at_q + 1'b1 : last_sub ? acc_q + scale.acc_block : acc_q;
      else if (next_row) acc_at_q <= acc_q + 1'b1;
      else if (next_block) acc_at_q <= acc_at_q + logit.acc_block;
      if (!is_scale_q && next_row) acc_q <= acc_q + 1'b1;
      if (is_scale_q) begin
        if (last_row) sub_q <= last_sub ? '0 : sub_q + 1'b1;
      end else begin
        sub_q <= last_sub ? '0 : sub_q + 1'b1;
      end
      if (next_block) begin
        add_q <= add_q + scale.add_block;
        if (is_scale_q) begin
          acc_q <= acc_q + scale.acc_block;
          dst_q <= dst_q + scale.dst_block;
        end else begin
          dst_q <= last_block ? prob.dst : dst_q + prob.dst_block;
        end
      end
      if (!is_scale_q && next_row) begin
        lgt_q <= lgt_q + (is_logit_q ? logit.lgt_row : prob.lgt_row);
        rel_w_q <= rel_w_q + 16'(logit.rel_w_row);
        rel_h_q <= rel_h_q + 16'(logit.rel_h_row);
      end
    end
  end

  // Addresses. `vec` gives a parameter, the addend of a row, or the width terms of a block.
  always_comb begin
    unique case (state_q)
      Mult: vec_word = 20'(scale.mult) + 20'(block);
      Bias: vec_word = 20'(scale.add) + 20'(block);
      RelH: vec_word = 20'(rel_h_q);
      default: vec_word = is_logit_q ? 20'(rel_w_q) + 20'(block) : 20'(add_q) + 20'(row);
    endcase
  end
  logic [5:0] rel_h_lane;
  assign rel_h_lane = logit.rel_h_lane & 6'(Dim - 1);
  logic [19:0] vec_sub;
  assign vec_sub = state_q == RelH ? 20'(rel_h_lane) >> $clog2(Lanes) : 20'(sub_q);
  assign vec_addr_o = (vec_word << SubBits) | vec_sub;
  assign acc_addr_o = acc_at_q;
  assign lgt_addr_o = ((20'(lgt_q) + 20'(block)) << SubBits) | 20'(sub_q);

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
    slot_o.sub = 4'(sub_q);
    slot_o.first = is_scale_q || (first_block && sub_q == '0);
    slot_o.last = is_scale_q || (last_block && last_sub);
    slot_o.fresh = logit.first;
    slot_o.stat = (is_logit_q ? logit.stat : prob.stat) + row[7:0];
    slot_o.pre = is_scale_q ? scale.pre : is_logit_q ? logit.pre : '0;
    slot_o.shift = is_logit_q ? 6'(logit.shift) : '0;
    slot_o.mult = is_logit_q ? logit.mult : MantissaBits'(1);
    slot_o.row_addend = row_addend_q;
    slot_o.bias = is_scale_q && scale.add_mode == 2'd1;
    slot_o.lane = rel_h_lane & 6'(Lanes - 1);
    // lanes of this group that hold real keys
    slot_o.real_lanes = last_block && is_logit_q ? logit.valid : 7'd127;
    slot_o.memory = is_scale_q ? memory_e'({1'b0, scale.memory}) : op == OpProb ? MemAct : MemLgt;
    slot_o.dst = is_logit_q ? lgt_q + 16'(block) : dst_q + 16'(row);
  end

  assign give_valid_o = state_q == Give;
  assign give_mask_o = instr_q[11:8];
  assign busy_o = state_q != Idle;
endmodule
