// The lanes of the vector unit: scale, add, saturate, and then numbers, codes, logits or sums of exponentials.
// Stage numbers count cycles from the issue of a slot; SPEC 4 says what is computed.
module ahcq_lanes
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned Lanes = 2,
  parameter int unsigned StatDepth = 16
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  input  logic                          valid_i,
  input  slot_t                         slot_i,
  output logic                          busy_o,
  output logic                          rows_ready_o,
  // memory data, one cycle after the slot
  input  logic [Dim-1:0][31:0]          acc_data_i,
  input  logic [Lanes-1:0][31:0]        vec_data_i,
  input  logic [Lanes-1:0][LogitBits-1:0] lgt_data_i,
  input  logic                          encode_we_i,
  input  logic [4:0]                    encode_waddr_i,
  input  logic [63:0]                   encode_wdata_i,
  output logic                          number_valid_o,   // to `vec` or `lgt`
  output slot_t                         number_slot_o,
  output logic [Lanes-1:0][31:0]        number_o,
  output logic                          code_valid_o,     // to `act` or `out`
  output slot_t                         code_slot_o,
  output logic [Lanes-1:0][CodeBits-1:0] code_o
);
  localparam int unsigned Stages = 15;
  localparam int unsigned WideBits = 58;
  localparam logic signed [LogitBits-1:0] Masked = {1'b1, {(LogitBits - 1) {1'b0}}};
  localparam logic signed [WideBits-1:0] LogitMax = WideBits'(2 ** (LogitBits - 1) - 1);
  localparam logic [5:0] MaxShift = 6'd55;
  localparam int unsigned LogBits = 20;
  localparam int unsigned PendingRows = 4;

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

  // Row statistics.
  localparam int unsigned StatWidth = $clog2(StatDepth);
  logic signed [LogitBits-1:0] row_max;
  logic signed [LogBits-1:0] row_log, stat_q[Stages+1];
  logic max_we, log_we;
  logic [StatWidth-1:0] max_waddr, log_waddr;
  logic signed [LogitBits-1:0] max_wdata;
  logic signed [LogBits-1:0] log_wdata;
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
  ahcq_ram #(
    .Width(LogBits),
    .Depth(StatDepth)
  ) u_row_log (
    .clk_i,
    .we_i   (log_we),
    .waddr_i(log_waddr),
    .wdata_i(log_wdata),
    .re_i   (valid_i),
    .raddr_i(slot_i.stat[StatWidth-1:0]),
    .rdata_o(row_log)
  );
  always_ff @(posedge clk_i) begin
    stat_q[0] <= '0;
    stat_q[1] <= '0;
    stat_q[2] <= slot[1].op == OpProb ? row_log : LogBits'(row_max);
    for (int unsigned i = 3; i <= Stages; i++) stat_q[i] <= stat_q[i-1];
  end

  // Stages 1 to 9, lane by lane.
  logic [31:0] rel_h_q;
  logic [Lanes-1:0][31:0] vec_tail[2];  // stage 4
  logic signed [31:0] number_q[Lanes];
  logic masked_q[Lanes];
  always_ff @(posedge clk_i) begin
    if (valid[4] && slot[4].kind == SetRelH) rel_h_q <= vec_tail[0][slot[4].lane[$clog2(Lanes)-1:0]];
  end
  assign vec_tail[1] = '0;

  for (genvar l = 0; l < Lanes; l++) begin : gen_lane
    logic signed [31:0] a_q, vec_q[9], bias_q, keep_q;
    logic signed [32:0] rounded_q;
    logic signed [MantissaBits-1:0] mult_q;
    logic signed [32+MantissaBits:0] product4_q, product5_q;
    logic signed [WideBits-1:0] sum_q, half_q, shifted_q;
    logic signed [WideBits-1:0] total;
    logic [5:0] shift_q[8];
    logic [31:0] a;
    logic signed [32:0] pre_half;

    // 1: choose
    always_comb begin
      a = 32'(signed'(lgt_data_i[l]));
      if (slot[1].op == OpScale || slot[1].op == OpLogit) a = acc_data_i[32'(slot[1].sub) * Lanes + l];
    end
    always_ff @(posedge clk_i) begin
      a_q <= a;
      vec_q[2] <= vec_data_i[l];
      for (int unsigned i = 3; i < 9; i++) vec_q[i] <= vec_q[i-1];
      vec_q[0] <= '0;
      vec_q[1] <= '0;
    end
    assign vec_tail[0][l] = vec_q[4];

    // 2: shift before the multiplication; pick the multiplier
    assign pre_half = slot[2].pre == '0 ? '0 : 33'sd1 <<< (slot[2].pre - 1'b1);
    always_ff @(posedge clk_i) begin
      if (valid[2] && slot[2].kind == SetMult) keep_q <= vec_q[2];
      rounded_q <= (33'(a_q) + pre_half) >>> slot[2].pre;
      mult_q <= slot[2].op == OpScale ? keep_q[MantissaBits-1:0] : slot[2].mult;
      shift_q[3] <= slot[2].op == OpScale ? keep_q[MantissaBits+:6] : slot[2].shift;
      for (int unsigned i = 4; i < 8; i++) shift_q[i] <= shift_q[i-1] > MaxShift ? MaxShift : shift_q[i-1];
      for (int unsigned i = 0; i < 3; i++) shift_q[i] <= '0;
    end

    // 3, 4: multiply.  5: relative positions.  6: half.  7: shift
    always_ff @(posedge clk_i) begin
      product4_q <= rounded_q * mult_q;
      product5_q <= product4_q;
      sum_q <= WideBits'(product5_q);
      if (slot[5].op == OpLogit && slot[5].row_addend) begin
        sum_q <= WideBits'(product5_q) + WideBits'(vec_q[5]) + WideBits'(signed'(rel_h_q));
      end
      half_q <= sum_q + (shift_q[6] == '0 ? '0 : WideBits'(1) << (shift_q[6] - 1'b1));
      shifted_q <= half_q >>> shift_q[7];
    end

    // 8: add and saturate
    always_ff @(posedge clk_i) if (valid[7] && slot[7].kind == SetBias) bias_q <= vec_q[7];
    always_comb begin
      total = shifted_q;
      if (slot[8].op == OpScale && slot[8].bias) total = shifted_q + WideBits'(bias_q);
      if (slot[8].op == OpScale && slot[8].row_addend) total = shifted_q + WideBits'(vec_q[8]);
      if (slot[8].op == OpProb) total = shifted_q - WideBits'(stat_q[8]);
      if (slot[8].op == OpExpsum) total = WideBits'(stat_q[8]) - shifted_q;
    end
    always_ff @(posedge clk_i) begin
      masked_q[l] <= shifted_q[LogitBits-1:0] == Masked;
      if (slot[8].op == OpLogit) begin
        if (32'(slot[8].sub) * Lanes + l >= 32'(slot[8].real_lanes)) number_q[l] <= 32'(Masked);
        else if (total > LogitMax) number_q[l] <= 32'(LogitMax);
        else if (total < -LogitMax) number_q[l] <= -32'(LogitMax);
        else number_q[l] <= total[31:0];
      end else if (total[WideBits-1:31] == '0 || total[WideBits-1:31] == '1) begin
        number_q[l] <= total[31:0];
      end else begin
        number_q[l] <= {total[WideBits-1], {31{!total[WideBits-1]}}};
      end
    end
    assign number_o[l] = number_q[l];

    ahcq_encoder u_encoder (
      .clk_i,
      .we_i   (encode_we_i),
      .waddr_i(encode_waddr_i),
      .wdata_i(encode_wdata_i),
      .value_i(number_q[l]),
      .code_o (code_o[l])
    );
    ahcq_exp2 u_exp2 (
      .clk_i,
      .zero_i (masked_q[l]),
      .below_i(number_q[l][LogitBits-1:0]),
      .exp_o  (exps[l])
    );
  end

  // 9: numbers leave.  15: codes leave
  assign number_valid_o = valid[9] && slot[9].kind == Compute &&
      (slot[9].op == OpLogit || (slot[9].op == OpScale && slot[9].memory == MemVec));
  assign number_slot_o = slot[9];
  assign code_valid_o = valid[15] && slot[15].kind == Compute &&
      (slot[15].op == OpProb || (slot[15].op == OpScale && slot[15].memory != MemVec));
  assign code_slot_o = slot[15];

  // 10, 11: row maximum
  logic signed [LogitBits-1:0] lane_max, lane_max_q, run_q, run_from, run;
  always_comb begin
    lane_max = number_q[0][LogitBits-1:0];
    for (int unsigned l = 1; l < Lanes; l++) begin
      if ($signed(number_q[l][LogitBits-1:0]) > lane_max) lane_max = number_q[l][LogitBits-1:0];
    end
  end
  assign run_from = !slot[10].first ? run_q : slot[10].fresh ? Masked : stat_q[10][LogitBits-1:0];
  assign run = lane_max_q > run_from ? lane_max_q : run_from;
  logic logit_10;
  assign logit_10 = valid[10] && slot[10].op == OpLogit && slot[10].kind == Compute;
  always_ff @(posedge clk_i) begin
    lane_max_q <= lane_max;
    if (logit_10) run_q <= run;
  end
  assign max_we = logit_10 && slot[10].last;
  assign max_waddr = slot[10].stat[StatWidth-1:0];
  assign max_wdata = run;

  // 13 to 15: row sum of exponentials, then its logarithm
  logic [Lanes-1:0][ExpBits:0] exps;
  logic [30:0] lane_sum, lane_sum_q, row_sum_q, row_sum;
  logic exp_14, sum_valid, sum_ready, log_ready, log_valid, fifo_ready;
  logic [30:0] log_total;
  logic [13:0] log;
  logic signed [LogitBits-1:0] log_max;
  logic [StatWidth-1:0] log_stat;
  always_comb begin
    lane_sum = '0;
    for (int unsigned l = 0; l < Lanes; l++) lane_sum = lane_sum + 31'(exps[l]);
  end
  assign exp_14 = valid[14] && slot[14].op == OpExpsum;
  assign row_sum = (slot[14].first ? '0 : row_sum_q) + lane_sum_q;
  always_ff @(posedge clk_i) begin
    lane_sum_q <= lane_sum;
    if (exp_14) row_sum_q <= row_sum;
  end
  ahcq_fifo #(
    .Width(31 + LogitBits + StatWidth),
    .Depth(PendingRows)
  ) u_sums (
    .clk_i,
    .rst_ni,
    .valid_i(exp_14 && slot[14].last),
    .ready_o(fifo_ready),
    .data_i ({row_sum, stat_q[14][LogitBits-1:0], slot[14].stat[StatWidth-1:0]}),
    .valid_o(sum_valid),
    .ready_i(log_valid),
    .data_o ({log_total, log_max, log_stat})
  );
  assign sum_ready = sum_valid && log_ready;
  ahcq_log2 u_log2 (
    .clk_i,
    .rst_ni,
    .valid_i(sum_ready),
    .ready_o(log_ready),
    .total_i(log_total),
    .valid_o(log_valid),
    .log_o  (log)
  );
  assign log_we = log_valid;
  assign log_waddr = log_stat;
  assign log_wdata = LogBits'(log_max) + LogBits'({1'b0, log});

  logic [2:0] pending_q;
  logic row_begins;
  assign row_begins = valid_i && slot_i.op == OpExpsum && slot_i.first;
  assign rows_ready_o = pending_q != 3'(PendingRows);
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) pending_q <= '0;
    else pending_q <= pending_q + 3'(row_begins) - 3'(log_valid);
  end
  assign busy_o = valid_q != '0 || pending_q != '0;

  // a row begins only if its sum will have room
  SumsFit_A : assert property (@(posedge clk_i) disable iff (!rst_ni) exp_14 && slot[14].last |-> fifo_ready);
endmodule
