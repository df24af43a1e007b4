// The encoder, with any ascending thresholds and any codes: an interval that holds the value decides the code. The
// tables have no initial contents here; `encoder_tables.sv` says what writing puts into them.
module encoder
  import ahcq_isa_pkg::*;
(
  input logic               clk_i,
  input logic signed [31:0] value_i
);
  logic [CodeBits-1:0] code;
  logic signed [31:0] value_q;
  logic [4:0] interval_q;  // no initial value: any, and it stays
  logic [2:0] cycle_q = '0;
  ahcq_encoder u_encoder (
    .clk_i,
    .we_i   (1'b0),
    .waddr_i('0),
    .wdata_i('0),
    .value_i(value_q),
    .code_o (code)
  );
  always_ff @(posedge clk_i) begin
    value_q <= value_q;
    interval_q <= interval_q;
    if (cycle_q != '1) cycle_q <= cycle_q + 1'b1;
  end

  logic signed [31:0] threshold[31];
  logic in_interval;
  always_comb begin
    for (int unsigned i = 0; i < 31; i++) begin
      if (i % 2 == 0) threshold[i] = u_encoder.level4[i/2];
      else if (i % 4 == 1) threshold[i] = u_encoder.level3[i/4];
      else if (i % 8 == 3) threshold[i] = u_encoder.level2[i/8];
      else if (i % 16 == 7) threshold[i] = u_encoder.level1[i/16];
      else threshold[i] = u_encoder.level0;
    end
    for (int unsigned i = 0; i < 30; i++) assume (threshold[i] <= threshold[i+1]);
    in_interval = 1'b1;
    for (int unsigned i = 0; i < 31; i++) begin
      if (32'(interval_q) == i && value_q > threshold[i]) in_interval = 1'b0;
      if (32'(interval_q) == i + 1 && value_q <= threshold[i]) in_interval = 1'b0;
    end
    if (cycle_q >= 3'd6 && in_interval) begin
      assert (code == (interval_q[0] ? u_encoder.odd[interval_q[4:1]] : u_encoder.even[interval_q[4:1]]));
    end
  end
endmodule
