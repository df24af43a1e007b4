// The lanes of the vector unit: scale, add, saturate, and then numbers, codes, or logits and the greatest of their row.
// Stage numbers count cycles from the entry of a slot; SPEC 4 says what is computed.
module ahcq_lanes
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter int unsigned Lanes = 2,
  parameter int unsigned StatDepth = 16
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  input  logic                          valid_i,
  input  slot_t                         slot_i,
  output logic                          busy_o,
  // memory data, one cycle after the slot
  input  logic [Lanes-1:0][31:0]        acc_data_i,
  input  logic [Lanes-1:0][31:0]        vec_data_i,
  input  logic [Lanes-1:0][LogitBits-1:0] lgt_data_i,
  input  logic                          encode_we_i,
  input  logic [4:0]                    encode_waddr_i,
  input  logic [63:0]                   encode_wdata_i,
  output logic                          vec_valid_o,      // numbers
  output logic                          lgt_valid_o,
  output slot_t                         number_slot_o,
  output logic [Lanes-1:0][31:0]        number_o,
  output logic                          act_valid_o,      // codes
  output logic                          out_valid_o,
  output slot_t                         code_slot_o,
  output logic [Lanes-1:0][CodeBits-1:0] code_o
);
  localparam int unsigned Levels = $clog2(Lanes);
  localparam int unsigned NumberStage = 13;
  localparam int unsigned CodeStage = NumberStage + 6;
  localparam int unsigned MaxStage = NumberStage + Levels;
  localparam int unsigned Stages = CodeStage > MaxStage ? CodeStage : MaxStage;

  logic [Stages:0] valid;
  slot_t slot[Stages+1];
  logic [Stages:1] valid_q;
  slot_t slot_q[Stages+1];
  assign valid = {valid_q, valid_i};
  always_comb begin
    slot[0] = slot_i;
    for (int unsigned i = 1; i <= Stages; i++) slot[i] = slot_q[i];
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= valid[Stages-1:0];
  end
  always_ff @(posedge clk_i) begin
    slot_q[0] <= '0;
    for (int unsigned i = 1; i <= Stages; i++) slot_q[i] <= slot[i-1];
  end

  // Row maxima.
  localparam int unsigned StatWidth = $clog2(StatDepth);
  logic signed [LogitBits-1:0] row_max;
  logic [MaxStage:2][LogitBits-1:0] row_max_q;
  logic max_we;
  logic [StatWidth-1:0] max_waddr;
  logic signed [LogitBits-1:0] max_wdata;
  ahcq_ram #(
    .Width(LogitBits),
    .Depth(StatDepth)
  ) u_row_max (
    .clk_i,
    .we_i   (max_we),
    .waddr_i(max_waddr),
    .wdata_i(max_wdata),
    .re_i   (valid_i),
    .raddr_i(slot_i.stat[StatWidth-1:0]),
    .rdata_o(row_max)
  );
  always_ff @(posedge clk_i) row_max_q <= {row_max_q[MaxStage-1:2], row_max};

  // Decoded one stage before its use, and registered in each lane.
  scaler_control_t control;
  logic set_rel_h_5_q;
  always_comb begin
    control.from_acc_1 = slot[0].op == OpScale || slot[0].op == OpLogit;
    control.pre_2 = slot[1].pre;
    control.set_mult_3 = valid[2] && slot[2].kind == SetMult;
    control.scale_3 = slot[2].op == OpScale;
    control.mult_3 = slot[2].mult;
    control.shift_3 = slot[2].shift;
    control.rel_6 = slot[5].op == OpLogit && slot[5].row_addend;
    control.set_bias_9 = valid[8] && slot[8].kind == SetBias;
    control.addend_9 = addend_of(slot[8]);
    control.carry_10 = slot[9].op == OpProb;
    control.logit_12 = slot[11].op == OpLogit;
  end
  always_ff @(posedge clk_i) set_rel_h_5_q <= valid[4] && slot[4].kind == SetRelH;

  // Stages 1 to 13, lane by lane, and the encoder after them.
  logic signed [31:0] rel_h_q;
  logic [Lanes-1:0][31:0] vec_5, number;
  logic [Lanes-1:0][LogitBits-1:0] logits;
  always_ff @(posedge clk_i) begin
    if (set_rel_h_5_q) rel_h_q <= vec_5[slot[5].lane[$clog2(Lanes)-1:0]];
  end

  for (genvar l = 0; l < Lanes; l++) begin : gen_lane
    logic [31:0] sum_2_q, vec_2_q;
    logic real_12_q;
    scaler_control_t control_q;

    ahcq_copy #(
      .Width($bits(scaler_control_t))
    ) u_copy (
      .clk_i,
      .data_i(control),
      .data_o(control_q)
    );

    always_ff @(posedge clk_i) begin
      sum_2_q <= control_q.from_acc_1 ? acc_data_i[l] : 32'(signed'(lgt_data_i[l]));
      vec_2_q <= vec_data_i[l];
      real_12_q <= 32'(slot[11].sub) * Lanes + l < 32'(slot[11].real_lanes);
    end
    ahcq_scaler u_scaler (
      .clk_i,
      .control_i  (control_q),
      .sum_2_i    (sum_2_q),
      .vec_2_i    (vec_2_q),
      .vec_5_o    (vec_5[l]),
      .rel_h_6_i  (rel_h_q),
      .row_max_9_i(row_max_q[9]),
      .real_12_i  (real_12_q),
      .number_13_o(number[l])
    );
    assign number_o[l] = number[l];
    assign logits[l] = number[l][LogitBits-1:0];

    ahcq_encoder u_encoder (
      .clk_i,
      .we_i   (encode_we_i),
      .waddr_i(encode_waddr_i),
      .wdata_i(encode_wdata_i),
      .value_i(number[l]),
      .code_o (code_o[l])
    );
  end

  // Where results go, decoded one stage before.
  slot_t number_next, code_next;
  assign number_next = slot[NumberStage-1];
  assign code_next = slot[CodeStage-1];
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      vec_valid_o <= 1'b0;
      lgt_valid_o <= 1'b0;
      act_valid_o <= 1'b0;
      out_valid_o <= 1'b0;
    end else begin
      vec_valid_o <= valid[NumberStage-1] && number_next.kind == Compute && number_next.op == OpScale &&
          number_next.memory == MemVec;
      lgt_valid_o <= valid[NumberStage-1] && number_next.kind == Compute && number_next.op == OpLogit;
      act_valid_o <= valid[CodeStage-1] && code_next.kind == Compute && code_next.memory == MemAct;
      out_valid_o <= valid[CodeStage-1] && code_next.kind == Compute && code_next.memory == MemOut;
    end
  end
  assign number_slot_o = slot[NumberStage];
  assign code_slot_o = slot[CodeStage];

  // Row maximum.
  logic signed [LogitBits-1:0] lane_max, run_q, run_from, run;
  logic logit_here;
  ahcq_tree #(
    .Count(Lanes),
    .Width(LogitBits)
  ) u_max (
    .clk_i,
    .data_i(logits),
    .data_o(lane_max)
  );
  assign run_from = !slot[MaxStage].first ? run_q : slot[MaxStage].fresh ? Masked : row_max_q[MaxStage];
  assign run = lane_max > run_from ? lane_max : run_from;
  always_ff @(posedge clk_i) begin
    if (logit_here) run_q <= run;
  end
  assign logit_here = valid[MaxStage] && slot[MaxStage].op == OpLogit && slot[MaxStage].kind == Compute;
  assign max_we = logit_here && slot[MaxStage].last;
  assign max_waddr = slot[MaxStage].stat[StatWidth-1:0];
  assign max_wdata = run;

  assign busy_o = valid_q != '0;
endmodule
