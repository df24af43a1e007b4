// The encoder, with any codes: if the value exceeds the first n thresholds and no other (of ascending thresholds it always
// does so for one n), the code is number n. The tables have any contents here; `encoder_tables.sv` says what writing puts
// into them.
module encoder
  import ahcq_isa_pkg::*;
(
  input logic               clk_i,
  input logic               we_i,  // never; but the tables must not seem constant
  input logic [4:0]         waddr_i,
  input logic [63:0]        wdata_i
);
  logic [CodeBits-1:0] code;
  logic signed [31:0] value_q;
  logic [4:0] interval_q;  // no initial value: any, and it stays
  logic [2:0] cycle_q = '0;
  ahcq_encoder u_encoder (
    .clk_i,
    .we_i,
    .waddr_i,
    .wdata_i,
    .value_i(value_q),
    .code_o (code)
  );
  always_ff @(posedge clk_i) begin
    value_q <= value_q;
    interval_q <= interval_q;
    if (cycle_q != '1) cycle_q <= cycle_q + 1'b1;
  end

  logic signed [31:0] threshold[31];
  always_comb begin
    for (int unsigned i = 0; i < 31; i++) begin
      if (i % 2 == 0) threshold[i] = u_encoder.level4[i/2];
      else if (i % 4 == 1) threshold[i] = u_encoder.level3[i/4];
      else if (i % 8 == 3) threshold[i] = u_encoder.level2[i/8];
      else if (i % 16 == 7) threshold[i] = u_encoder.level1[i/16];
      else threshold[i] = u_encoder.level0;
    end
    assume (!we_i);
    for (int unsigned i = 0; i < 31; i++) assume ((value_q > threshold[i]) == (i < 32'(interval_q)));
    // what each step has found
    if (cycle_q >= 3'd1) assert (u_encoder.index1_q == interval_q[4]);
    if (cycle_q >= 3'd2) assert (u_encoder.index2_q == interval_q[4:3]);
    if (cycle_q >= 3'd3) assert (u_encoder.index3_q == interval_q[4:2]);
    if (cycle_q >= 3'd4) assert (u_encoder.index4_q == interval_q[4:1]);
    if (cycle_q >= 3'd5) assert (u_encoder.index5_q == interval_q);
    if (cycle_q >= 3'd6) begin
      assert (code == (interval_q[0] ? u_encoder.odd[interval_q[4:1]] : u_encoder.even[interval_q[4:1]]));
    end
  end
endmodule
